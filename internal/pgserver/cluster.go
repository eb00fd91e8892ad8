package pgserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A socket's whole path must fit into sockaddr_un: 104 bytes on the BSDs, 108
// on Linux, a final zero included.
const maxSocketPath = 103

// fallbackParent is where data go that the server's user could not reach
// below the data folder.
var fallbackParent = "/var/lib"

// locate decides which binaries run, as whom, on which folder.
func (s *Server) locate(ctx context.Context) error {
	link := filepath.Join(s.cfg.DataDir, "postgres")
	st, err := os.Stat(link)
	existing := err == nil
	switch {
	case existing:
		if s.data, err = filepath.EvalSymlinks(link); err != nil {
			return err
		}
		if s.as, err = owner(st); err != nil {
			return fmt.Errorf("%s: %w", s.data, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	default:
		if target, err := os.Readlink(link); err == nil {
			return fmt.Errorf("%s points to %s, and there is nothing", link, target)
		}
		if s.as, err = unprivileged(); err != nil {
			return err
		}
	}

	major := 0
	if existing {
		text, err := os.ReadFile(filepath.Join(s.data, "PG_VERSION"))
		if err != nil {
			return fmt.Errorf("%s is not a PostgreSQL data folder: %w", s.data, err)
		}
		if major, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			return fmt.Errorf("%s is of an unknown version", s.data)
		}
	}
	dirs := candidates()
	if s.cfg.BinDir != "" {
		dirs = []string{s.cfg.BinDir}
	}
	if s.bins, err = find(ctx, dirs, major); err != nil {
		return err
	}

	home := s.cfg.DataDir
	if existing {
		home = filepath.Dir(s.data)
		if !s.reaches(ctx, home) {
			return fmt.Errorf("the server's user (%s) cannot get at %s: open the folders above it (chmod o+x)", s.as.name, s.data)
		}
	} else if !s.reaches(ctx, home) {
		if home, err = s.moveOut(link); err != nil {
			return err
		}
	}
	if !existing {
		if home, err = filepath.EvalSymlinks(home); err != nil {
			return err
		}
		s.data = filepath.Join(home, "postgres")
	}
	if !s.executes(ctx) {
		return s.copyBinaries(ctx, home)
	}
	return nil
}

// moveOut makes a folder outside the data folder, for a server's user who
// can't pass through the folders above that (a clone below root's home), and
// leaves a link to the cluster that is going to be made there.
//
// The name is new each time: whoever removes the data folder, and the link
// with it, starts afresh and does not meet an old database whose keys are gone.
func (s *Server) moveOut(link string) (string, error) {
	home, err := os.MkdirTemp(fallbackParent, "muster-")
	if err != nil {
		return "", fmt.Errorf("the server's user (%s) cannot get at %s, and there is no other place: %w",
			s.as.name, s.cfg.DataDir, err)
	}
	if err := os.Chmod(home, 0o711); err != nil {
		return "", err
	}
	s.log.Warn("the database lives outside the data folder, where its user can't reach",
		"user", s.as.name, "folder", home, "link", link)
	return home, os.Symlink(filepath.Join(home, "postgres"), link)
}

// reaches reports whether the server's user can enter dir.
func (s *Server) reaches(ctx context.Context, dir string) bool {
	if s.as == nil {
		return true
	}
	// Changing into the folder comes after changing the user. The program
	// must be one that everybody can run.
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", ":")
	s.as.runAs(cmd)
	cmd.Env, cmd.Dir = environment(), dir
	return cmd.Run() == nil
}

// executes reports whether the server's user can run the binaries.
func (s *Server) executes(ctx context.Context) bool {
	return s.as == nil || s.command(ctx, "postgres", "--version").Run() == nil
}

// copyBinaries takes the binaries (bin, lib and share beside each other) to
// where the server's user can run them.
func (s *Server) copyBinaries(ctx context.Context, home string) error {
	to := filepath.Join(home, "postgresql-"+strconv.Itoa(s.bins.major))
	from := filepath.Dir(s.bins.dir)
	s.bins.dir = filepath.Join(to, filepath.Base(s.bins.dir))
	if s.executes(ctx) {
		return nil // by an earlier start
	}
	s.log.Info("copying PostgreSQL's binaries to where its user can run them", "folder", to)
	if err := errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(from))); err != nil {
		return err
	}
	if err := os.Chmod(to, 0o755); err != nil {
		return err
	}
	if !s.executes(ctx) {
		return fmt.Errorf("the server's user (%s) cannot run PostgreSQL in %s", s.as.name, to)
	}
	return nil
}

// prepare makes what is missing: the password, the cluster, the socket's
// folder. A kill at any point leaves either no cluster or a whole one.
func (s *Server) prepare(ctx context.Context) error {
	_, err := os.Stat(s.data)
	existing := err == nil
	if err := s.secret(existing); err != nil {
		return err
	}
	if !existing {
		if err := s.initdb(ctx); err != nil {
			return err
		}
	}
	return s.placeSocket()
}

func (s *Server) initdb(ctx context.Context) error {
	half := s.data + ".new"
	pass := half + ".password"
	defer os.Remove(pass)
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	if err := os.Mkdir(half, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(pass, []byte(s.password+"\n"), 0o600); err != nil {
		return err
	}
	if err := errors.Join(s.as.give(half), s.as.give(pass)); err != nil {
		return err
	}
	args := []string{
		"-D", half, "--username=" + Owner, "--pwfile=" + pass, "--auth=scram-sha-256",
		"--encoding=UTF8", "--data-checksums", "--no-instructions",
	}
	if s.cfg.Settings["fsync"] == "off" {
		args = append(args, "--no-sync")
	}
	// Bytes decide the order of text, on every system alike; but letters
	// beyond ASCII have their upper and lower case. The system's C.UTF-8,
	// which gave that before PostgreSQL had its own, is not everywhere.
	locales := [][]string{{"--locale=C", "--lc-ctype=C.UTF-8"}, {"--locale=C"}}
	if s.bins.major >= 17 {
		locales = [][]string{{"--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"}}
	}
	var out []byte
	var err error
	for _, locale := range locales {
		out, err = s.command(ctx, "initdb", append(args, locale...)...).CombinedOutput()
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, lastLines(out))
	}
	if err := os.Rename(half, s.data); err != nil {
		return err
	}
	return syncDir(filepath.Dir(s.data))
}

// placeSocket chooses the socket's folder: the cluster itself, which nobody
// else may enter, or one in the system's temporary folder when that path can't
// be a socket's, or none.
func (s *Server) placeSocket() error {
	fits := func(dir string) bool {
		// In a connection string a comma ends the host.
		return len(dir)+len("/.s.PGSQL.65535") <= maxSocketPath && !strings.Contains(dir, ",")
	}
	if fits(s.data) {
		s.socket = s.data
		return nil
	}
	sum := sha256.Sum256([]byte(s.data))
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		dir := filepath.Join(parent, "muster-"+hex.EncodeToString(sum[:8]))
		if !filepath.IsAbs(dir) || !fits(dir) {
			continue
		}
		// One that a killed server left may be in the way; one that is a
		// stranger's cannot be removed, and then there is no socket.
		if os.RemoveAll(dir) == nil && os.Mkdir(dir, 0o700) == nil && s.as.give(dir) == nil {
			s.socket, s.tempSock = dir, true
			return nil
		}
	}
	s.log.Info("no folder is short enough for a Unix socket: TCP only")
	return nil
}

// command prepares one of PostgreSQL's programs to run as the server's user.
func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.bins.path(name), args...)
	s.as.runAs(cmd)
	// The root folder is the one that every user can be in.
	cmd.Env, cmd.Dir = environment(), "/"
	return cmd
}

// environment is what PostgreSQL's programs get to see: nothing of ours that
// could be secret, nothing (PGDATA, PGPORT…) that could lead them astray.
func environment() []string {
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// lastLines cuts a program's output to what a message can hold: what was
// fatal, or else its end.
func lastLines(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	fatal := slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		return !strings.Contains(line, "FATAL:") && !strings.Contains(line, "PANIC:")
	})
	if len(fatal) > 0 {
		lines = fatal
	}
	if len(lines) > 3 {
		lines = lines[len(lines)-3:]
	}
	return strings.Join(lines, "; ")
}
