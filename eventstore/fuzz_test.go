package eventstore

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// FuzzKeyFile reads arbitrary key files. One that is taken has a primary that
// wraps and unwraps; one that is refused is not quoted in the error, since it
// may hold keys.
func FuzzKeyFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "keys.json")
	if _, err := CreateKeyring(path); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte(`"k1"`), []byte(`"k2"`), 1))
	f.Add(bytes.Replace(good, []byte(`=`), []byte(`!`), 1))
	f.Add([]byte(`{"primary":"k1","keys":{"k1":"secretsecretsecret"},"claims":""}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"claims": secretsecretsecret`))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "keys.json")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := OpenKeyring(path)
		if err != nil {
			var f keyFile
			if json.Unmarshal(text, &f) != nil && strings.Contains(err.Error(), "secretsecret") {
				t.Errorf("the error quotes the file: %v", err)
			}
			for id, value := range f.Keys {
				if len(value) > 8 && value != id && strings.Contains(err.Error(), value) {
					t.Errorf("the error quotes a key: %v", err)
				}
			}
			if len(f.Claims) > 8 && strings.Contains(err.Error(), f.Claims) {
				t.Errorf("the error quotes the claims secret: %v", err)
			}
			return
		}
		key := make([]byte, 32)
		rand.Read(key)
		id, wrapped := k.Wrap("stream", key)
		if id != k.Primary() {
			t.Errorf("wrapped with %q, the primary is %q", id, k.Primary())
		}
		if got, err := k.Unwrap("stream", id, wrapped); err != nil || !bytes.Equal(got, key) {
			t.Errorf("what was wrapped does not unwrap: %v", err)
		}
		if _, err := k.Unwrap("another", id, wrapped); err == nil {
			t.Error("a key of one stream unwraps for another")
		}
	})
}

// FuzzOpen opens arbitrary bytes as a sealed payload: they never open, nor does
// a genuine one that is altered or cut anywhere.
func FuzzOpen(f *testing.F) {
	key := bytes.Repeat([]byte{7}, 32)
	aead, err := newAEAD(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, []byte("plain"), uint(3), byte(1))
	f.Add(make([]byte, nonceSize+16), []byte{}, uint(0), byte(0xff))
	f.Fuzz(func(t *testing.T, junk, plain []byte, at uint, flip byte) {
		ad := []byte("stream and event")
		if _, err := open(aead, junk, ad); !errors.Is(err, errUnseal) {
			t.Fatalf("junk: %v", err)
		}
		sealed := seal(aead, plain, ad)
		if got, err := open(aead, sealed, ad); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%q, %v", got, err)
		}
		i := int(at % uint(len(sealed)))
		if _, err := open(aead, sealed[:i], ad); !errors.Is(err, errUnseal) {
			t.Errorf("cut at %d: %v", i, err)
		}
		if flip != 0 {
			sealed[i] ^= flip
			if _, err := open(aead, sealed, ad); !errors.Is(err, errUnseal) {
				t.Errorf("altered at %d: %v", i, err)
			}
		}
	})
}

// FuzzArrays encodes arrays of arbitrary elements and has pgx decode them.
func FuzzArrays(f *testing.F) {
	f.Add("a\x01b\x01\x01c", int64(-1), true)
	f.Add("", int64(0), false)
	f.Fuzz(func(t *testing.T, joined string, number int64, null bool) {
		var parts []string
		if joined != "" {
			parts = strings.Split(joined, "\x01")
		}
		texts, blobs, numbers := newArray(pgtype.TextOID, 0), newArray(pgtype.ByteaOID, 0), newArray(pgtype.Int8OID, 0)
		for _, p := range parts {
			texts.text(p)
			blobs.blob([]byte(p))
			numbers.int8(number)
		}
		if null {
			blobs.blob(nil)
		}
		m := pgtype.NewMap()
		var gotTexts []string
		if err := m.Scan(pgtype.TextArrayOID, pgtype.BinaryFormatCode, texts.bytes(), &gotTexts); err != nil || strings.Join(gotTexts, "\x01") != joined {
			t.Errorf("texts: %q, %v", gotTexts, err)
		}
		var gotBlobs [][]byte
		if err := m.Scan(pgtype.ByteaArrayOID, pgtype.BinaryFormatCode, blobs.bytes(), &gotBlobs); err != nil {
			t.Fatalf("blobs: %v", err)
		}
		if null {
			if n := len(gotBlobs); n != len(parts)+1 || gotBlobs[n-1] != nil {
				t.Fatalf("blobs: %q does not end in NULL", gotBlobs)
			}
			gotBlobs = gotBlobs[:len(parts)]
		}
		if len(gotBlobs) != len(parts) || string(bytes.Join(gotBlobs, []byte{1})) != joined {
			t.Errorf("blobs: %q", gotBlobs)
		}
		var gotNumbers []int64
		if err := m.Scan(pgtype.Int8ArrayOID, pgtype.BinaryFormatCode, numbers.bytes(), &gotNumbers); err != nil || len(gotNumbers) != len(parts) {
			t.Errorf("numbers: %v, %v", gotNumbers, err)
		}
		for _, n := range gotNumbers {
			if n != number {
				t.Errorf("number %d instead of %d", n, number)
			}
		}
	})
}

// wire is an answer of the database as it comes in.
type wire struct {
	pgx.Rows
	rows [][][]byte
	n    int
}

func (w *wire) Next() bool                    { w.n++; return w.n <= len(w.rows) }
func (w *wire) RawValues() [][]byte           { return w.rows[w.n-1] }
func (w *wire) Close()                        {}
func (w *wire) Err() error                    { return nil }
func (w *wire) CommandTag() pgconn.CommandTag { return pgconn.CommandTag{} }

// FuzzRows decodes rows of events whose fields of variable length are
// arbitrary. The rows share one buffer, as the wire's do, which is overwritten
// afterwards: no event may keep a hold of it.
func FuzzRows(f *testing.F) {
	f.Add("stream", "Happened", "org", "actor", []byte("data"), []byte("sealed"), int64(1), int64(1))
	f.Add("", "", "", "", []byte(nil), []byte{}, int64(-1), int64(1<<62))
	f.Fuzz(func(t *testing.T, stream, typ, org, actor string, data, sealed []byte, position, at int64) {
		var buf []byte
		keep := func(b []byte) []byte {
			if b == nil {
				return nil
			}
			buf = append(buf, b...)
			return buf[len(buf)-len(b) : len(buf) : len(buf)]
		}
		row := func(sequence int64) [][]byte {
			return [][]byte{keep(int8Param(position)), keep([]byte(stream)), keep(int8Param(sequence)), keep([]byte{3, 1}), keep(make([]byte, 16)),
				keep([]byte(typ)), keep([]byte{0, 2}), keep([]byte(org)), keep([]byte(actor)), keep(int8Param(at)), keep(data), keep(sealed)}
		}
		buf = make([]byte, 0, 4*(len(stream)+len(typ)+len(org)+len(actor)+len(data)+len(sealed)+100))
		w := &wire{rows: [][][]byte{row(1), row(2)}}
		s := &Store{}
		s.epochs.Store(&[]epoch{{1, 1}})
		events, err := s.collect(w, nil, 0)
		if err != nil || len(events) != 2 {
			t.Fatalf("%d events, %v", len(events), err)
		}
		clear(buf)
		for i, e := range events {
			if e.Stream != stream || e.Type != typ || e.Org != org || e.Actor != actor || int64(e.Position) != position ||
				e.Sequence != int64(i)+1 || e.Slice != 0x301 || e.Schema != 2 || microseconds(e.At) != at && at < 1<<50 && at > -1<<50 {
				t.Errorf("%+v", e)
			}
			if !bytes.Equal(e.Data, data) || (e.Data == nil) != (data == nil) || !bytes.Equal(e.Sealed, sealed) || (e.Sealed == nil) != (sealed == nil) {
				t.Errorf("payloads %q, %q of %q, %q", e.Data, e.Sealed, data, sealed)
			}
		}
	})
}
