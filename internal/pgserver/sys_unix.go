//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package pgserver

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

const supported = true

// account is an unprivileged user that a privileged process runs PostgreSQL
// as. A nil account is the process's own user.
type account struct {
	name     string
	uid, gid int
}

// unprivileged chooses whom to run new data as: nobody else (nil) unless the
// process is root.
func unprivileged() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil || uid == 0 {
			continue
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			continue
		}
		return &account{name, uid, gid}, nil
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody to run it as")
}

// owner returns whom to run existing data as: who they belong to.
func owner(st fs.FileInfo) (*account, error) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, errors.New("the file system tells no owners")
	}
	if os.Geteuid() == int(sys.Uid) && sys.Uid != 0 {
		return nil, nil
	}
	name := "user " + strconv.Itoa(int(sys.Uid))
	if u, err := user.LookupId(strconv.Itoa(int(sys.Uid))); err == nil {
		name = u.Username
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("the data belong to " + name + ": run as that user, or as root")
	}
	if sys.Uid == 0 {
		return nil, errors.New("the data belong to root, whom PostgreSQL refuses")
	}
	return &account{name, int(sys.Uid), int(sys.Gid)}, nil
}

// give makes path the account's.
func (a *account) give(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// runAs makes cmd run as the account, in a process group of its own, so that
// the terminal's Ctrl-C reaches us alone and we stop it in order.
func (a *account) runAs(cmd *exec.Cmd) {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a != nil {
		attr.Credential = &syscall.Credential{
			Uid: uint32(a.uid), Gid: uint32(a.gid), Groups: []uint32{uint32(a.gid)},
		}
	}
	dieWithParent(attr)
	cmd.SysProcAttr = attr
}

func signal(pid int, sig syscall.Signal) error { return syscall.Kill(pid, sig) }

// exists reports whether there is a process of that number, a zombie or
// somebody else's included.
func exists(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
