package password

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"
	"pgregory.net/rapid"
)

// cheap are formats whose verification takes microseconds: they get thousands
// of wrong passwords, the dear ones a few.
func cheap(d *digest) bool {
	return (d.kind == kDigest || d.kind == kTemplate || d.kind == kHMAC) && d.n < 100
}

// mutate changes a password in one of the ways that weak verifiers overlook:
// cut, doubled, in another case, with blanks, with a byte changed or added.
func mutate(t *rapid.T, pw string) string {
	at := rapid.IntRange(0, len(pw)-1).Draw(t, "at")
	switch rapid.IntRange(0, 7).Draw(t, "how") {
	case 0:
		return pw[:at]
	case 1:
		return pw + pw
	case 2:
		return strings.ToUpper(pw)
	case 3:
		return pw + strings.Repeat("\x00", at+1)
	case 4:
		return pw[:at] + rapid.StringN(1, 4, 16).Draw(t, "put in") + pw[at:]
	case 5:
		return pw[:at] + pw[at+1:]
	case 6:
		return pw + rapid.StringN(1, 200, 400).Draw(t, "put behind")
	default:
		b := []byte(pw)
		b[at] ^= byte(1 << rapid.IntRange(0, 7).Draw(t, "bit"))
		return string(b)
	}
}

func TestMutatedPasswordsDoNotVerify(t *testing.T) {
	var fast, slow []vector
	for _, v := range vectors(t) {
		d, err := parse(v.encoded)
		if err != nil {
			t.Fatal(err)
		}
		if cheap(&d) {
			fast = append(fast, v)
		} else {
			slow = append(slow, v)
		}
	}
	wrong := func(t interface {
		Errorf(string, ...any)
	}, v vector, pw string) {
		if pw == v.password {
			return
		}
		if ok, err := Verify(context.Background(), v.encoded, pw, nil); ok || err != nil {
			t.Errorf("%s of %q verifies %q: %v, %v", v.format, v.password, pw, ok, err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) { // 100 times
		for _, v := range fast {
			for range 2 {
				wrong(rt, v, mutate(rt, v.password))
			}
		}
	})
	// One vector a format is enough here, the cheapest to verify.
	best := map[string]vector{}
	cost := map[string]int{}
	for _, v := range slow {
		d, _ := parse(v.encoded)
		if c := d.n * max(d.r, 1); cost[v.format] == 0 || c < cost[v.format] {
			best[v.format], cost[v.format] = v, c
		}
	}
	for _, v := range best {
		pws := []string{v.password[:len(v.password)-1], v.password + "\x00", v.password[1:], v.password + " x", strings.ToUpper(v.password), "wrong"}
		if d, _ := parse(v.encoded); d.memory() > 8<<20 || d.kind == kBcrypt && d.n >= 10 {
			pws = pws[:2]
		}
		for _, pw := range pws {
			wrong(t, v, pw)
		}
	}
}

// TestMutatedHashesDoNotVerify: a changed digest must not match, whatever
// part of it changed.
func TestMutatedHashesDoNotVerify(t *testing.T) {
	for _, v := range vectors(t) {
		d, err := parse(v.encoded)
		if err != nil || !cheap(&d) || d.sum.text == "" {
			continue
		}
		start := strings.LastIndex(v.encoded, d.sum.text)
		// The last character may hold bits beyond the last byte.
		for i := start; i < start+len(unpad(d.sum.text))-1; i++ {
			b := []byte(v.encoded)
			if b[i]++; b[i] == ':' || b[i] == '[' || b[i] == '{' || b[i] == '0' || b[i] == ',' {
				b[i] = 'A'
			}
			if strings.EqualFold(string(b), v.encoded) {
				continue
			}
			if ok, _ := Verify(t.Context(), string(b), v.password, nil); ok {
				t.Errorf("%s: verifies although character %d of the hash changed: %s", v.format, i-start, b)
			}
		}
	}
}

// TestBcryptTakesLongPasswords: what bcrypt itself does not look at, nobody does.
func TestBcryptTakesLongPasswords(t *testing.T) {
	// htpasswd -nbB -C 4 u "$(printf 'a%.0s' $(seq 80))"
	const encoded = "$2y$04$NfPBemb3TYoC1hFmTgBO8OwTdId1BfqmM3tFoSSRcXFMEZTyQVn4K"
	for pw, want := range map[string]bool{
		strings.Repeat("a", 80): true,
		strings.Repeat("a", 72): true,
		strings.Repeat("a", 71): false,
	} {
		if ok, err := Verify(t.Context(), encoded, pw, nil); ok != want || err != nil {
			t.Errorf("%d characters: %v, %v; want %v", len(pw), ok, err, want)
		}
	}
}

// TestArgon2OldAgreesWithNew: our own Argon2, set to version 19, is the
// library's; only what version 16 leaves out differs.
func TestArgon2OldAgreesWithNew(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		lanes := rapid.Uint32Range(1, 4).Draw(rt, "lanes")
		memory := lanes * rapid.Uint32Range(8, 70).Draw(rt, "memory of a lane")
		passes := rapid.Uint32Range(1, 3).Draw(rt, "passes")
		size := rapid.Uint32Range(16, 128).Draw(rt, "size")
		pw := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(rt, "password")
		salt := rapid.SliceOfN(rapid.Byte(), 8, 32).Draw(rt, "salt")
		for id, want := range map[bool][]byte{
			true:  argon2.IDKey(pw, salt, passes, memory, uint8(lanes), size),
			false: argon2.Key(pw, salt, passes, memory, uint8(lanes), size),
		} {
			if got := argon2Old(id, 19, pw, salt, passes, memory, lanes, size); string(got) != string(want) {
				rt.Fatalf("id=%v: %x, want %x", id, got, want)
			}
		}
	})
}

func TestCrypt64RoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(rt, "bytes")
		f := field{encodeCrypt64(b), cry64}
		if n, ok := f.size(); !ok || n != len(b) || string(f.bytes()) != string(b) {
			rt.Fatalf("%x became %q, then %x", b, f.text, f.bytes())
		}
		g := field{encodeB64(b), b64}
		if n, ok := g.size(); !ok || n != len(b) || string(g.bytes()) != string(b) {
			rt.Fatalf("%x became %q, then %x", b, g.text, g.bytes())
		}
	})
}

// FuzzRecognise: nothing that a caller sends makes us panic, and what is
// accepted can be verified without an error, but for a missing secret. Costs
// are kept low so that each run is short.
func FuzzRecognise(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.encoded)
	}
	for _, b := range bombs {
		f.Add(b.inside)
		f.Add(b.outside)
	}
	f.Fuzz(func(t *testing.T, encoded string) {
		format, err := Recognise(encoded)
		if err != nil {
			if !errors.As(err, new(*Error)) {
				t.Fatalf("Recognise returned %T", err)
			}
			if _, verr := Verify(t.Context(), encoded, "x", nil); verr == nil {
				t.Fatal("Verify judged what Recognise refused")
			}
			return
		}
		d, _ := parse(encoded)
		if d.n > 5000 || d.memory() > 1<<20 || d.kind == kBcrypt && d.n > 4 {
			return
		}
		if _, err := Verify(t.Context(), encoded, "x", nil); err != nil && format.Secret == "" {
			t.Fatalf("Verify of what Recognise accepted: %v", err)
		}
	})
}

func BenchmarkRecognise(b *testing.B) {
	all := vectors(b)
	for _, name := range []string{"bcrypt", "argon2id", "pbkdf2-sha256", "firebase-scrypt", "ldap-ssha", "aspnet-identity-v3", "md5"} {
		for _, v := range all {
			if v.format != name {
				continue
			}
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Recognise(v.encoded); err != nil {
						b.Fatal(err)
					}
				}
			})
			break
		}
	}
}

// BenchmarkCostBomb shows that refusing takes microseconds.
func BenchmarkCostBomb(b *testing.B) {
	for b.Loop() {
		for _, bomb := range bombs {
			if _, err := Verify(context.Background(), bomb.outside, "x", nil); err == nil {
				b.Fatal("accepted")
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(bombs)), "ns/bomb")
}

// BenchmarkHash is what one login or one plain password of an import costs.
func BenchmarkHash(b *testing.B) {
	for b.Loop() {
		if _, err := Hash(rand.Reader, "Migrate-Me-42"); err != nil {
			b.Fatal(err)
		}
	}
}
