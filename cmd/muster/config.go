package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"
	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/internal/pgserver"
	"github.com/muster-id/muster/migrations"
)

// Config is what all commands need to find the service's data.
type Config struct {
	DatabaseURL string `env:"DATABASE_URL" placeholder:"URL" help:"PostgreSQL 15 to 18; unset: one of Muster's own under the data folder."`
	DataDir     string `env:"MUSTER_DATA_DIR" default:".muster" help:"Folder for what is not in PostgreSQL, and for Muster's own PostgreSQL."`
	KeyFile     string `env:"MUSTER_KEY_FILE" placeholder:"FILE" help:"Key-encryption keys; default keys.json in the data folder."`
	OrgID       string `env:"MUSTER_ORG_ID" placeholder:"ID" help:"The default organisation's id; unset: generated."`
	LogFormat   string `env:"MUSTER_LOG_FORMAT" enum:"text,json" default:"text" help:"text or json."`
	LogLevel    string `env:"MUSTER_LOG_LEVEL" enum:"debug,info,warn,error" default:"info" help:"debug, info, warn or error."`

	Version kong.VersionFlag `help:"Print the version."`
}

// version says what this binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, modified := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = " " + s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+"
		}
	}
	return info.Main.Version + revision + modified + " " + info.GoVersion
}

func (c *Config) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return nil, err
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}

func (c *Config) keyFile() string {
	if c.KeyFile != "" {
		return c.KeyFile
	}
	return filepath.Join(c.DataDir, "keys.json")
}

// database is the PostgreSQL that a command works on.
type database struct {
	url   string
	where string           // for people; without a password
	died  <-chan error     // yields when a PostgreSQL of our own is gone for good
	stop  func() error     // ends a PostgreSQL of our own
	own   *pgserver.Server // nil when it is somebody else's
}

// openDatabase finds the database, or starts one. With alongside, a PostgreSQL
// that a running service keeps in the data folder is used as well.
func (a *app) openDatabase(alongside bool) (*database, error) {
	if err := os.MkdirAll(a.cfg.DataDir, 0o711); err != nil {
		return nil, fmt.Errorf("the data folder: %w", err)
	}
	if a.cfg.DatabaseURL != "" {
		where := "DATABASE_URL"
		if cfg, err := pgx.ParseConfig(a.cfg.DatabaseURL); err == nil {
			where = fmt.Sprintf("%s:%d, database %s (DATABASE_URL)", cfg.Host, cfg.Port, cfg.Database)
		}
		return &database{url: a.cfg.DatabaseURL, where: where, stop: func() error { return nil }}, nil
	}
	srv, err := pgserver.Start(a, pgserver.Config{DataDir: a.cfg.DataDir, Restart: true, Logger: a.log})
	if errors.Is(err, pgserver.ErrInUse) && alongside {
		url, err := pgserver.Running(a.cfg.DataDir)
		if err != nil {
			return nil, err
		}
		return &database{url: url, where: "the running service's own", stop: func() error { return nil }}, nil
	}
	if err != nil {
		return nil, err
	}
	stop := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return srv.Stop(ctx)
	}
	return &database{url: srv.URL(), where: srv.Location(), died: srv.Done(), stop: stop, own: srv}, nil
}

// openKeys opens the key file. A missing one is made only beside a log that
// holds nothing yet: whatever was sealed before would be lost with its keys.
func (a *app) openKeys(url string) (*eventstore.Keyring, error) {
	path := a.cfg.keyFile()
	keys, err := eventstore.OpenKeyring(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return keys, err
	}
	conn, err := pgx.Connect(a, url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(a))
	var used bool
	if err := conn.QueryRow(a, `SELECT EXISTS (SELECT FROM streams)`).Scan(&used); err != nil {
		return nil, err
	}
	if used {
		return nil, fmt.Errorf("the key file %s is missing, and the log holds events that were sealed with its keys: put it back", path)
	}
	a.log.Info("a new key file; keep a copy of it away from the database's backups", "file", path)
	return eventstore.CreateKeyring(path)
}

// openStore opens the log for a command that works beside the service.
func (a *app) openStore() (*eventstore.Store, func(), error) {
	db, err := a.openDatabase(true)
	if err != nil {
		return nil, nil, err
	}
	store, err := a.openStoreOn(db.url)
	if err != nil {
		return nil, nil, errors.Join(err, db.stop())
	}
	return store, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(a), 10*time.Second)
		defer cancel()
		if err := errors.Join(store.Close(ctx), db.stop()); err != nil {
			a.log.Warn("closing", "error", err)
		}
	}, nil
}

func (a *app) openStoreOn(url string) (*eventstore.Store, error) {
	if err := migrations.Up(a, url); err != nil {
		return nil, err
	}
	keys, err := a.openKeys(url)
	if err != nil {
		return nil, err
	}
	return eventstore.New(a, eventstore.Config{URL: url, Role: migrations.ServiceRole, Keys: keys, Log: a.log, PoolSize: 16})
}

// defaultOrg returns the organisation for calls that name none: the configured
// one, else the one that the first start on this log made.
func (a *app) defaultOrg(store *eventstore.Store, orgs *access.Organisations) (string, error) {
	if a.cfg.OrgID != "" {
		return a.cfg.OrgID, orgs.Ensure(a, a.cfg.OrgID, "Default", systemActor)
	}
	// All instances ask for the same thing under one idempotency key, so the
	// first one's organisation is everybody's.
	once := eventstore.Idempotency{Key: "muster: the default organisation"}
	r, found, err := store.Repeat(a, once)
	if err != nil {
		return "", err
	}
	if !found {
		now := time.Now()
		org := domain.Organisation{ID: ulid.Make().String()}
		decision, err := org.Add("Default")
		if err != nil {
			return "", err
		}
		add := access.NewAppend(decision, systemActor, now)
		add.Idempotency = &once
		if r, err = store.Append(a, add); err != nil {
			return "", err
		}
	}
	return strings.TrimPrefix(r.Stream, domain.OrganisationStream("")), nil
}

// systemActor is who the service's own events are by.
const systemActor = eventstore.SystemPrefix + "muster"

// adminToken returns the configured admin token, or the one in the data folder,
// which is made at first; file is empty when it was configured.
func (a *app) adminToken(configured string) (token, file string, err error) {
	if configured != "" {
		return configured, "", nil
	}
	file = filepath.Join(a.cfg.DataDir, "admin.token")
	raw, err := os.ReadFile(file)
	if err == nil && strings.TrimSpace(string(raw)) != "" {
		return strings.TrimSpace(string(raw)), file, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("the admin token: %w", err)
	}
	var secret [32]byte
	rand.Read(secret[:])
	token = base64.RawURLEncoding.EncodeToString(secret[:])
	tmp, err := os.CreateTemp(a.cfg.DataDir, ".admin-*") // mode 0600
	if err != nil {
		return "", "", fmt.Errorf("the admin token: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(token + "\n")
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	return token, file, err
}
