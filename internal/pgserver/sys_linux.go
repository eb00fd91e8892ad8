package pgserver

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent has the kernel ask the server for a fast shutdown when the
// thread that started it dies, so that a kill -9 of the service leaves no
// server behind. Only a thread that lives as long as the server may start it.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGINT }

// runsPostgres reports whether process pid is a PostgreSQL process that works
// on the data in dir. Each of them has that as its working directory. A zombie
// has none, and does not count.
func runsPostgres(pid int, dir string) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	exe, err := os.Readlink(filepath.Join(proc, "exe"))
	if err != nil {
		return false
	}
	cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
	return err == nil && cwd == dir && strings.HasPrefix(filepath.Base(exe), "postgres")
}

// postgresProcesses lists all PostgreSQL processes that work on the data in dir.
func postgresProcesses(dir string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && runsPostgres(pid, dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}
