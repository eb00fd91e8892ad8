// Package source turns the exports of other user systems into import commands.
//
// It promises that
//
//   - a source is read once, from front to back, in memory that does not grow
//     with it: one record at a time, at most 1 MiB each. Second files (hashes,
//     links, metadata) are joined through a table that moves to disk when it is
//     large; the order of the users' file is kept;
//   - one bad record never harms another, as far as the format lets its end be
//     found;
//   - users and their hashes are joined by id, never by e-mail address;
//   - nothing gets lost unseen: each value of the source that no command
//     carries is counted by its path, each row that is left out by its reason,
//     each hash and second factor that could not be taken with a warning on
//     its row;
//   - no value of the source appears in an error, a warning or a loss report.
//
// The mapping of each source is written down in docs/sources.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

// Format is the name of a source system.
type Format string

// The formats, by the names that --format takes.
const (
	Muster     Format = "muster"
	ZITADEL    Format = "zitadel"
	Auth0      Format = "auth0"
	Keycloak   Format = "keycloak"
	Firebase   Format = "firebase"
	Okta       Format = "okta"
	Cognito    Format = "cognito"
	FusionAuth Format = "fusionauth"
	Kratos     Format = "kratos"
	Supabase   Format = "supabase"
	Clerk      Format = "clerk"
	Django     Format = "django"
	WordPress  Format = "wordpress"
	ASPNet     Format = "aspnet"
	LDIF       Format = "ldif"
	Devise     Format = "devise"
	Laravel    Format = "laravel"
)

// spec is what a format is made of.
type spec struct {
	// wrappers name the arrays that hold the rows in a document.
	wrappers []string
	// settings name the members beside them that are read.
	settings []string
	// csv says how its CSV differs from RFC 4180 with a header.
	csv dialect
	// parts are the files beside the users', by part.
	parts map[Part]part
	// convert reads one user.
	convert func(*row) error
	// serial says that the source's ids are 1, 2, 3 …: two sources would have
	// the same, so they do not become user ids unless asked for.
	serial bool
}

// Part says what a file of a source holds.
type Part string

// PartUsers is the file that has a row for each person; every other part is
// joined to it.
const PartUsers Part = "users"

// part is a second file: keep picks from a row the keys that it may be joined
// by and the fields to keep. Without a key the row is of no use; without fields
// it is known, but nothing of it is carried.
type part struct {
	keep func(v value, l *losses) (keys, fields []string)
}

// columns is how most parts are kept: under one key.
func columns(key string, names ...string) part {
	return part{func(v value, _ *losses) (keys, fields []string) {
		v.get("id").use()
		if k := v.get(key).str(); k != "" {
			keys = append(keys, k)
		}
		for _, name := range names {
			fields = append(fields, v.get(name).str())
		}
		return keys, fields
	}}
}

var specs = map[Format]*spec{
	Muster:     {convert: convertMuster},
	ZITADEL:    {}, // its rows stand in organisations: see zitadel.go
	Auth0:      auth0,
	Keycloak:   keycloak,
	Firebase:   firebase,
	Okta:       okta,
	Cognito:    cognito,
	FusionAuth: fusionAuth,
	Kratos:     kratos,
	Supabase:   supabase,
	Clerk:      clerk,
	Django:     django,
	WordPress:  wordPress,
	ASPNet:     aspNet,
	LDIF:       ldif,
	Devise:     devise,
	Laravel:    laravel,
}

// Formats returns the names of all formats, sorted.
func Formats() []Format {
	names := make([]Format, 0, len(specs))
	for f := range specs {
		names = append(names, f)
	}
	slices.Sort(names)
	return names
}

// Options say how to read a source. The zero value is good for all that need
// no secret.
type Options struct {
	// Format overrides what the files look like; empty: find out.
	Format Format
	// Map has the operator's names: see [Mapping].
	Map Mapping
	// IDs says which source ids become user ids.
	IDs IDs
	// AssumeVerified takes each e-mail address as verified, for sources that
	// know no such thing (Django, WordPress, LDAP, Laravel …). Where the
	// source does say, it has no effect.
	AssumeVerified bool
	// PhoneRegion is the country (ISO 3166, such as "SE") that phone numbers
	// without a country code are in. Empty: such numbers are left out, with a
	// warning.
	PhoneRegion string
	// PlaceholderDomain gives users without an e-mail address one that nobody
	// receives: the source's id at this domain, not verified. Empty: such
	// rows fail when they are imported.
	PlaceholderDomain string
	// Secrets are the project's secrets; SecretRef names the one that this
	// source's hashes need (Firebase's parameters, a pepper). Keys that come
	// within rows are moved into Secrets, under names that begin with
	// SecretRef, or with the format's name if that is empty.
	Secrets   password.Secrets
	SecretRef string
	// FusionAuth's scheme and factor for users that have none of their own,
	// when the document names them behind the users or not at all.
	Scheme string
	Factor int
	// Now is the moment, in Unix seconds, that lockouts are measured against.
	Now int64
	// TempDir is for joins that do not fit into memory; empty: the system's.
	TempDir string

	// joinMemory is how many bytes a second file may take in memory; 0:
	// sideMemory.
	joinMemory int
}

// IDs says which source ids become user ids.
type IDs uint8

const (
	// IDsAuto keeps ids that are unique in the world and gives a new one to
	// users whose source counts 1, 2, 3 …
	IDsAuto IDs = iota
	// IDsKeep keeps all.
	IDsKeep
	// IDsNew keeps none; the source's id still becomes the external id.
	IDsNew
)

// Record is one row of a source.
type Record struct {
	// Row counts all rows of all files, from 1: the same for the same files,
	// so that a job can resume by it.
	Row int64
	// Input is the name of the file, Line the line on which the row begins
	// there, or in a JSON document its index from 1.
	Input string
	Line  int64
	// Org is the organisation that the row names (ZITADEL's document); empty
	// for that of the import.
	Org string
	// Command is the import command, not yet normalised.
	Command domain.ImportHuman
	// Skipped says why the row is no person to import; the rest is empty then.
	Skipped  string
	Warnings []domain.Warning
	// Err says why this row could not be read. It is fit for a report: an
	// *domain.Error. The reader goes on behind it.
	Err error
}

// Reader reads a source.
type Reader interface {
	// Format is the format that the reader reads.
	Format() Format
	// Next returns the next row, or io.EOF. Any other error ends the reading;
	// what is wrong with one row only is in Record.Err. The record's slices
	// are the caller's.
	Next(ctx context.Context) (Record, error)
	// Secrets are the project's secrets that the hashes of the rows so far
	// refer to: those of the options, and keys that came within rows. They have
	// to be kept before a row that needs them is imported; when there are more
	// of them than before, Next has just met one.
	Secrets() password.Secrets
	// Losses returns what was not carried so far. After Next returned io.EOF
	// it is complete.
	Losses() Losses
	// Close gives temporary files back. It does not close the inputs.
	Close() error
}

// Input is one file of a source.
type Input struct {
	// Name is the file's name; it may help to find the format out, and is
	// repeated in records. "-" for standard input.
	Name string
	// R is the content, plain or compressed with gzip or zstd.
	R io.Reader
	// Part overrides what the content looks like; empty: find out.
	Part Part
}

var (
	// ErrUnknownFormat says that no format fits.
	ErrUnknownFormat = errors.New("the format of the input is not known; --format names it")
	// ErrMixedFormats says that the files are not of one source.
	ErrMixedFormats = errors.New("the files are of different formats; --format names the right one")
	// ErrNoUsers says that only second files were given.
	ErrNoUsers = errors.New("none of the files holds users")
)

// Open finds out what the inputs are and returns a reader over the users in
// them. Files beside the users' are read on the first call of Next. why says
// in a few words what the format and each file were recognised by, for the
// operator.
func Open(inputs []Input, opts Options) (r Reader, why []string, err error) {
	format := opts.Format
	files := make([]*file, 0, len(inputs))
	for _, in := range inputs {
		f, err := openFile(in)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", in.Name, err)
		}
		g := Detect(f.head(), in.Name)
		if opts.Format != "" && g.Format != opts.Format {
			g = Guess{opts.Format, partOf(opts.Format, f.head()), "as asked for"}
		}
		if in.Part != "" {
			g.Part = in.Part
		}
		switch {
		case g.Format == "":
			return nil, nil, fmt.Errorf("%s: %w", in.Name, ErrUnknownFormat)
		case format == "":
			format = g.Format
		case format != g.Format:
			return nil, nil, fmt.Errorf("%w: %s and %s", ErrMixedFormats, format, g.Format)
		}
		f.part = g.Part
		files = append(files, f)
		why = append(why, fmt.Sprintf("%s: %s %s (%s)", in.Name, g.Format, g.Part, g.Reason))
	}
	s, ok := specs[format]
	if !ok {
		return nil, nil, fmt.Errorf("%w; known are %v", ErrUnknownFormat, Formats())
	}
	if opts.Secrets == nil {
		opts.Secrets = password.Secrets{}
	}
	rd := &reader{format: format, spec: s, opts: opts, losses: newLosses(), sides: map[Part]*sideTable{}}
	for _, f := range files {
		switch _, known := s.parts[f.part]; {
		case f.part == PartUsers:
			rd.users = append(rd.users, f)
		case known:
			rd.others = append(rd.others, f)
		default:
			return nil, nil, fmt.Errorf("%s: %s has no part %q", f.name, format, f.part)
		}
	}
	if len(rd.users) == 0 {
		return nil, nil, ErrNoUsers
	}
	return rd, why, nil
}

// rows hands out the records of one file. The error is io.EOF, a *rowError
// about one record, or one that ends the reading.
type rows interface {
	next(d *doc) (line int64, err error)
}

// rowError is about one record; the next can be read.
type rowError struct{ err error }

func (e *rowError) Error() string { return e.err.Error() }
func (e *rowError) Unwrap() error { return e.err }

type reader struct {
	format Format
	spec   *spec
	opts   Options

	users, others []*file
	sides         map[Part]*sideTable
	loaded        bool

	current rows
	n       int64 // rows so far
	doc     doc
	side    doc // for JSON within the row
	losses  *losses
}

func (r *reader) Format() Format { return r.format }

func (r *reader) Next(ctx context.Context) (Record, error) {
	if !r.loaded {
		if err := r.load(ctx); err != nil {
			return Record{}, err
		}
		r.loaded = true
	}
	for {
		if err := ctx.Err(); err != nil {
			return Record{}, err
		}
		if len(r.users) == 0 {
			r.leftover()
			return Record{}, io.EOF
		}
		f := r.users[0]
		if r.current == nil {
			r.current = r.open(f)
		}
		line, err := r.current.next(&r.doc)
		if errors.Is(err, io.EOF) {
			if err := closeRows(r.current); err != nil {
				return Record{}, err
			}
			r.current, r.users = nil, r.users[1:]
			continue
		}
		var bad *rowError
		if err != nil && !errors.As(err, &bad) {
			return Record{}, fmt.Errorf("%s: after row %d: %w", f.name, r.n, err)
		}
		r.n++
		rec := Record{Row: r.n, Input: f.name, Line: line}
		if bad != nil {
			rec.Err = refused(bad.err)
			return rec, nil //nolint:nilerr // the record bears it
		}
		return rec, r.convert(&rec)
	}
}

// refused is how a row that cannot be read is reported.
func refused(err error) error {
	var e *domain.Error
	if errors.As(err, &e) {
		return e
	}
	return &domain.Error{Kind: domain.KindInvalidArgument, ID: "SOURCE-Row01", Message: err.Error()}
}

func (r *reader) convert(rec *Record) error {
	rw := row{r: r, value: r.doc.root(), rec: rec}
	if o, ok := r.current.(interface{ org() string }); ok {
		rec.Org = o.org()
	}
	convert := r.spec.convert
	if c, ok := r.current.(interface{ convert(*row) error }); ok {
		convert = c.convert
	}
	wire := r.format == Muster || r.format == ZITADEL
	if !wire {
		rw.mapMetadata()
	}
	if err := convert(&rw); err != nil {
		var bad *rowError
		if !errors.As(err, &bad) {
			return err
		}
		rec.Command, rec.Err = domain.ImportHuman{}, refused(bad.err)
		return nil
	}
	if rec.Skipped != "" {
		r.losses.skipped[rec.Skipped]++
		rec.Command, rec.Warnings = domain.ImportHuman{}, nil
		return nil
	}
	if !wire {
		rw.finish()
	}
	r.losses.count(r.doc.root(), "")
	return nil
}

// load reads the second files.
func (r *reader) load(ctx context.Context) error {
	var d doc
	for _, f := range r.others {
		t := r.sides[f.part]
		if t == nil {
			t = newSideTable(r.opts)
			r.sides[f.part] = t
		}
		rs := r.open(f)
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			_, err := rs.next(&d)
			if errors.Is(err, io.EOF) {
				break
			}
			var bad *rowError
			if errors.As(err, &bad) {
				r.losses.unread[string(f.part)]++
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			keys, fields := r.spec.parts[f.part].keep(d.root(), r.losses)
			if len(keys) == 0 {
				r.losses.unread[string(f.part)]++
				continue
			}
			r.losses.count(d.root(), string(f.part)+".")
			for i, key := range keys {
				if len(fields) == 0 || i > 0 && key == keys[0] {
					continue
				}
				if i > 0 {
					t.aliases++
				}
				if err := t.put(key, pack(fields)); err != nil {
					return err
				}
			}
		}
		if err := closeRows(rs); err != nil {
			return err
		}
	}
	r.others = nil
	for _, t := range r.sides {
		if err := t.freeze(); err != nil {
			return err
		}
	}
	return nil
}

// leftover counts the rows of second files that belong to nobody.
func (r *reader) leftover() {
	for p, t := range r.sides {
		if n := t.unmatched(); n > 0 {
			r.losses.unmatched[string(p)] = n
		}
	}
}

func (r *reader) Secrets() password.Secrets { return r.opts.Secrets }

func (r *reader) Losses() Losses { return r.losses.report() }

func (r *reader) Close() error {
	err := closeRows(r.current)
	for _, t := range r.sides {
		err = errors.Join(err, t.close())
	}
	return err
}

func closeRows(rs rows) error {
	if c, ok := rs.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// pack joins the fields of a side row; unpack parts them.
func pack(fields []string) []byte { return []byte(strings.Join(fields, "\x00")) }

func unpack(b []byte) []string { return strings.Split(string(b), "\x00") }
