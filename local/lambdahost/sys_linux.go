package lambdahost

import "syscall"

// Of a group of its own, so that the terminal's Ctrl-C reaches the host alone; and gone when the host is, however it ended.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
