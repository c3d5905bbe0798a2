package main

import (
	"net"
	"strings"
	"testing"
)

func TestTakenPort(t *testing.T) {
	t.Parallel()
	l, err := listen(0, "API_PORT")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	if _, err := listen(port, "API_PORT"); err == nil || !strings.Contains(err.Error(), "is taken; another one: make run API_PORT=") {
		t.Errorf("%v", err)
	}
}
