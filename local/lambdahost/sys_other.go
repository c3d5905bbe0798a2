//go:build !linux

package lambdahost

import "syscall"

// Of a group of its own, so that the terminal's Ctrl-C reaches the host alone.
func sysProcAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
