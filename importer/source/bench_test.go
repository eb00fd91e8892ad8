package source

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// loop is an endless input that repeats a text n times without making it anew.
type loop struct {
	text string
	at   int
	n    int
}

func (l *loop) Read(p []byte) (int, error) {
	if l.n == 0 {
		return 0, io.EOF
	}
	c := copy(p, l.text[l.at:])
	if l.at += c; l.at == len(l.text) {
		l.at = 0
		l.n--
	}
	return c, nil
}

func drain(b *testing.B, r Reader) (n int) {
	for {
		rec, err := r.Next(context.Background())
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil || rec.Err != nil {
			b.Fatal(err, rec.Err)
		}
		n++
	}
}

// BenchmarkMuster measures rows of our own stream.
func BenchmarkMuster(b *testing.B) {
	const line = `{"userId":"65f0a1b2c3d4e5f601020304","userName":"ada.lindqvist","profile":{"firstName":"Ada","lastName":"Lindqvist","displayName":"Ada Lindqvist","preferredLanguage":"sv"},"email":{"email":"ada.lindqvist@example.test","isEmailVerified":true},"phone":{"phone":"+46701234567","isPhoneVerified":true},"hashedPassword":{"value":"$2a$10$LY3TRSJiUMhvcKc3cZKsXenFtNih/KMt4SNN41/QAxxfQFX8wIGyq"},"idps":[{"configId":"google","externalUserId":"110000000000000000001","displayName":"ada@example.test"}],"metadata":[{"key":"tier","value":"Z29sZA=="}]}` + "\n"
	b.SetBytes(int64(len(line)))
	r, _, err := Open([]Input{{Name: "b", R: &loop{text: line, n: b.N}}}, Options{Format: Muster})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	if n := drain(b, r); n != b.N {
		b.Fatal(n)
	}
}

// BenchmarkAuth0Pair measures users with a hash from a second file, b.N of
// each. Making the two inputs is part of what is measured: with
// -benchtime=1000000x it is the conversion of a million users.
func BenchmarkAuth0Pair(b *testing.B) {
	users := repeat("", auth0User, "", b.N)
	passwords := repeat("", func(i int) string { return auth0Password(b.N - 1 - i) }, "", b.N)
	r, _, err := Open([]Input{{Name: "u", R: users}, {Name: "p", R: passwords}}, Options{TempDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	if n := drain(b, r); n != b.N {
		b.Fatal(n)
	}
	if l := r.Losses(); len(l.Unmatched) > 0 {
		b.Fatal(l.Unmatched)
	}
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkDocument measures users within one document.
func BenchmarkDocument(b *testing.B) {
	const user = `{"id":"6f1c2a7e-0000-4000-8000-000000000001","username":"bo","enabled":true,"emailVerified":true,"firstName":"Bo","lastName":"Ek","email":"bo@example.test","attributes":{"dept":["it"]},"credentials":[{"type":"password","secretData":"{\"value\":\"pHGXaw/zOIsCWDp0ELKeUTUOooQFG5L6LttmlWh/CK4=\",\"salt\":\"c3ludGhldGljLXNhbHQxNg==\"}","credentialData":"{\"hashIterations\":5,\"algorithm\":\"argon2\",\"additionalParameters\":{\"memory\":[\"7168\"],\"type\":[\"id\"],\"version\":[\"1.3\"],\"parallelism\":[\"1\"]}}"}],"requiredActions":[]}`
	in := io.MultiReader(strings.NewReader(`{"realm":"r","users":[`+user), &loop{text: "," + user, n: b.N - 1}, strings.NewReader("]}"))
	b.SetBytes(int64(len(user)))
	r, _, err := Open([]Input{{Name: "b", R: in}}, Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	if n := drain(b, r); n != b.N {
		b.Fatal(n)
	}
}

// BenchmarkExport measures lines written.
func BenchmarkExport(b *testing.B) {
	c, err := ParseLine([]byte(`{"userId":"65f0","userName":"ada","profile":{"firstName":"Ada","lastName":"Lind"},"email":{"email":"a@example.test","isEmailVerified":true},"hashedPassword":{"value":"` + bcrypt + `"}}`))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var buf []byte
	for range b.N {
		if buf, err = AppendLine(buf[:0], c); err != nil {
			b.Fatal(err)
		}
	}
}
