//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package filelock

import "os"

func flock(*os.File, bool, bool) (bool, error) { return false, ErrUnsupported }
