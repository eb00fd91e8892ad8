package eventstore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
)

// TestSealsAreBound moves sealed payloads to where they do not belong: they do
// not open there.
func TestSealsAreBound(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	a, b := user(), user()
	must(t, s, a)
	must(t, s, b)
	events, err := s.Read(t.Context(), eventstore.Query{})
	if err != nil {
		t.Fatal(err)
	}
	swap := func(i, j int) []eventstore.Event {
		out := []eventstore.Event{events[i]}
		out[0].Sealed = events[j].Sealed
		return out
	}
	for name, wrong := range map[string][]eventstore.Event{
		"another subject's":         swap(0, 3),
		"another event's, the same": swap(0, 2),
	} {
		if err := s.Open(t.Context(), wrong); err == nil {
			t.Errorf("%s payload opens", name)
		}
	}
	altered := events[:1]
	altered[0].Sealed[20] ^= 1
	err = s.Open(t.Context(), altered)
	if err == nil || !strings.Contains(err.Error(), "position 1") {
		t.Errorf("an altered payload: %v", err)
	}
}

// TestErase destroys a subject's key: on the instance that does it and on
// another that has the key in its cache.
func TestErase(t *testing.T) {
	t.Parallel()
	url, keys := pgtest.New(t), keyring(t)
	s, other := open(t, url, keys, nil), open(t, url, keys, nil)
	a, b := user(), user()
	must(t, s, a)
	must(t, s, b)
	readable := func(s *eventstore.Store) (erased, opened int) {
		t.Helper()
		events, err := s.Read(t.Context(), eventstore.Query{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Open(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			switch {
			case e.Erased && e.Personal == nil:
				erased++
			case e.Personal != nil:
				opened++
			}
		}
		return erased, opened
	}
	if e, o := readable(other); e != 0 || o != 4 {
		t.Fatal(e, o)
	}
	end := eventstore.Append{Stream: a.Stream, Org: "org", Actor: "tester", At: at, Expected: 3, Erase: true, Release: a.Take,
		Events: []eventstore.NewEvent{{Type: "UserErased", Schema: 1}}}
	withPersonal := end
	withPersonal.Events = []eventstore.NewEvent{{Type: "UserErased", Schema: 1, Personal: []byte("x")}}
	if _, err := s.Append(t.Context(), withPersonal); !errors.Is(err, eventstore.ErrInvalidAppend) {
		t.Errorf("sealing and erasing at once: %v", err)
	}
	r := must(t, s, end)
	if e, o := readable(s); e != 2 || o != 2 {
		t.Errorf("where it was erased: %d erased, %d opened", e, o)
	}
	if err := other.Wait(t.Context(), r.Position-1); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { e, o := readable(other); return e == 2 && o == 2 })
	if _, err := other.Append(t.Context(), more(a.Stream, 4)); !errors.Is(err, eventstore.ErrErased) {
		t.Errorf("sealing for an erased subject: %v", err)
	}
	// Facts without personal data may still be told, and the name is free.
	must(t, other, eventstore.Append{Stream: a.Stream, Org: "org", Actor: "tester", At: at, Expected: eventstore.Any,
		Events: []eventstore.NewEvent{{Type: "UserRemoved", Schema: 1}}})
	c := user()
	c.Take = a.Take
	must(t, s, c)
	if sum := sound(t, s, nil); sum.Erased != 1 {
		t.Errorf("%+v", sum)
	}
}

// TestRotation rewraps everything while appends go on, after an interruption,
// and takes the former key away.
func TestRotation(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	path := filepath.Join(t.TempDir(), "keys.json")
	keys, err := eventstore.CreateKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, url, keys, nil)
	var as []eventstore.Append
	for range 2500 {
		as = append(as, user())
	}
	for _, o := range s.AppendMany(t.Context(), as) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	// Another process rotates; this one goes on appending.
	their, err := eventstore.OpenKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := their.AddPrimary(); err != nil || id != "k2" {
		t.Fatal(id, err)
	}
	rotator := open(t, url, their, nil)
	n, err := rotator.RewrapKeys(t.Context(), func(done int64) {
		if done == 1000 {
			must(t, s, user())
		}
	})
	if err != nil || n < 2500 {
		t.Fatal(n, err)
	}
	// s may still have wrapped with k1; it reads the file again by itself.
	eventually(t, func() bool { return s.Keys().Primary() == "k2" || s.Keys().Changed() })
	if err := s.Keys().Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := rotator.RewrapKeys(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	use, err := rotator.KeyUse(t.Context())
	if err != nil || use["k1"] != 0 || use["k2"] != 2501 {
		t.Fatal(use, err)
	}
	if n, err := rotator.RewrapKeys(t.Context(), nil); n != 0 || err != nil {
		t.Errorf("rewrapping what is done: %d, %v", n, err)
	}
	// Without k1 everything opens; without k2 nothing does.
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for without, ok := range map[string]bool{"k1": true, "k2": false} {
		lines := strings.Split(string(raw), "\n")
		for i := range lines {
			if strings.Contains(lines[i], fmt.Sprintf("%q: ", without)) {
				lines[i] = ""
			}
		}
		text := strings.Join(lines, "\n")
		if without == "k2" {
			text = strings.NewReplacer(`"k2"`, `"k1"`).Replace(text)
		}
		text = strings.ReplaceAll(text, ",\n\n", ",\n")
		text = strings.ReplaceAll(text, ",\n  }", "\n  }")
		text = strings.ReplaceAll(text, ",\n\n  }", "\n  }")
		p := filepath.Join(t.TempDir(), "keys.json")
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := eventstore.OpenKeyring(p)
		if err != nil {
			t.Fatalf("without %s: %v\n%s", without, err, text)
		}
		events, err := s.Read(t.Context(), eventstore.Query{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		err = open(t, url, k, nil).Open(t.Context(), events)
		if ok != (err == nil) || !ok && !errors.Is(err, eventstore.ErrUnknownKey) {
			t.Errorf("without %s: %v", without, err)
		}
	}
	sound(t, rotator, nil)
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.json")
	if _, err := eventstore.OpenKeyring(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	k, err := eventstore.CreateKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := eventstore.CreateKeyring(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating over a file: %v", err)
	}
	claim := eventstore.Claim{Kind: "ab", Scope: "c", Value: "d"}
	for _, other := range []eventstore.Claim{{Kind: "a", Scope: "bc", Value: "d"}, {Kind: "ab", Scope: "cd"}, {Kind: "ab", Scope: "", Value: "cd"}} {
		if k.ClaimHash(claim) == k.ClaimHash(other) {
			t.Errorf("%v collides with %v", other, claim)
		}
	}
	before := k.ClaimHash(claim)
	if _, err := k.AddPrimary(); err != nil {
		t.Fatal(err)
	}
	if k.ClaimHash(claim) != before {
		t.Error("a rotation changes the hashes of claims")
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"not JSON":        "secret",
		"no primary":      strings.Replace(string(good), `"primary": "k2"`, `"primary": "k9"`, 1),
		"a short key":     strings.Replace(string(good), `"k1": "`, `"k1": "AA`, 1),
		"another secret":  strings.Replace(string(good), `"claims": "`, `"claims": "`+strings.Repeat("A", 43)+`=", "was": "`, 1),
		"no claim secret": strings.Replace(string(good), `"claims"`, `"claimz"`, 1),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := k.Reload(); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "secret\"") {
			t.Errorf("%s: the error quotes the file: %v", name, err)
		}
	}
	if k.ClaimHash(claim) != before || k.Primary() != "k2" {
		t.Error("a bad file has changed the keys in use")
	}
}
