package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/muster-id/muster/importer/source"
)

func init() { sections = append(sections, section{"convert", benchConvert}) }

// benchConvert measures how fast an export of Auth0 becomes lines to import:
// -users people and, in a second file and in the opposite order, their hashes.
func benchConvert(ctx context.Context, b *bench) error {
	users, hashes := filepath.Join(b.tmp, "users.ndjson"), filepath.Join(b.tmp, "hashes.ndjson")
	err := errors.Join(
		writeLines(users, b.users, func(w io.Writer, i int) {
			fmt.Fprintf(w, `{"user_id":"auth0|%024x","email":"person-%d@example.test","email_verified":true,"name":"Ada Lind-%d","given_name":"Ada","family_name":"Lind-%d",`+
				`"nickname":"person-%d","locale":"sv","picture":"https://example.test/p.png","created_at":"2023-01-02T03:04:05.678Z","user_metadata":{"tier":"gold"},`+
				`"identities":[{"provider":"auth0","user_id":"%024x","connection":"Users","isSocial":false}],"logins_count":17}`+"\n", i, i, i, i, i, i)
		}),
		writeLines(hashes, b.users, func(w io.Writer, i int) {
			i = b.users - 1 - i
			fmt.Fprintf(w, `{"_id":{"$oid":"%024x"},"email":"person-%d@example.test","email_verified":true,"tenant":"bench","connection":"Users",`+
				`"passwordHash":"$2b$10$LY3TRSJiUMhvcKc3cZKsXenFtNih/KMt4SNN41/QAxxfQFX8wIGyq","_tmp_is_unique":true,"version":"1.1"}`+"\n", i, i)
		}))
	if err != nil {
		return err
	}
	defer os.Remove(users)
	defer os.Remove(hashes)
	before := highWater(os.Getpid())
	began := time.Now()
	var inputs []source.Input
	for _, name := range []string{users, hashes} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		inputs = append(inputs, source.Input{Name: name, R: f})
	}
	r, _, err := source.Open(inputs, source.Options{TempDir: b.tmp})
	if err != nil {
		return err
	}
	var line []byte
	var size int64
	n, hashed := 0, 0
	for {
		rec, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err = errors.Join(err, rec.Err); err != nil {
			return err
		}
		if line, err = source.AppendLine(line[:0], rec.Command); err != nil {
			return err
		}
		size += int64(len(line))
		n++
		if rec.Command.HashedPassword != "" {
			hashed++
		}
	}
	took := time.Since(began)
	if err := r.Close(); err != nil {
		return err
	}
	if n != b.users || hashed != n {
		return fmt.Errorf("%d of %d people came out, %d with a hash", n, b.users, hashed)
	}
	table(fmt.Sprintf("Converting an Auth0 pair of %d people to lines to import", n), []string{"", "", "aim"}, [][]string{
		{"time", fmt.Sprintf("%.1f s, %s", took.Seconds(), perSecond(float64(n)/took.Seconds())), "60 s for 1,000,000"},
		{"lines written", fmt.Sprintf("%d MB", size>>20), ""},
		{"memory at its highest", fmt.Sprintf("%d MB, %d MB before", highWater(os.Getpid())>>20, before>>20), ""},
	})
	return nil
}

func writeLines(name string, n int, line func(w io.Writer, i int)) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for i := range n {
		line(w, i)
	}
	return errors.Join(w.Flush(), f.Close())
}
