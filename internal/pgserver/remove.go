package pgserver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// Remove deletes the database in dataDir, with its password, port and log, for
// good. It refuses with ErrInUse while a service runs on it, and stops an
// orphaned server first. Nothing there is no error.
func Remove(ctx context.Context, dataDir string) error {
	s, err := open(ctx, Config{DataDir: dataDir})
	if err != nil {
		return err
	}
	defer s.close()
	link := filepath.Join(s.cfg.DataDir, "postgres")
	s.data, err = filepath.EvalSymlinks(link)
	if errors.Is(err, os.ErrNotExist) {
		s.data, err = link, nil
	}
	if err != nil {
		return err
	}
	if err := s.clear(ctx); err != nil {
		return err
	}
	for _, path := range []string{s.data, s.data + ".new", link,
		link + ".password", link + ".port", link + ".log", link + ".log.1"} {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}
