package password

import (
	"bufio"
	"os"
	"strings"
	"testing"
)

type vector struct{ format, password, source, encoded string }

// vectors reads testdata/vectors.tsv: hashes that other software made, with
// the format that we should call each.
func vectors(t testing.TB) []vector {
	t.Helper()
	f, err := os.Open("testdata/vectors.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []vector
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		p := strings.Split(lines.Text(), "\t")
		if len(p) != 4 {
			t.Fatalf("vectors.tsv: %d fields in %q", len(p), lines.Text())
		}
		out = append(out, vector{p[0], p[1], p[2], p[3]})
	}
	return out
}

func TestVectorsVerify(t *testing.T) {
	seen := map[string]bool{"peppered": true, "bcrypt-peppered": true} // secret_test.go
	for _, v := range vectors(t) {
		f, err := Recognise(v.encoded)
		if err != nil || f.Name != v.format {
			t.Errorf("%s by %s: recognised as %q, %v: %s", v.format, v.source, f.Name, err, v.encoded)
			continue
		}
		seen[f.Name] = true
		if ok, err := Verify(t.Context(), v.encoded, v.password, nil); !ok || err != nil {
			t.Errorf("%s by %s: Verify = %v, %v: %s", v.format, v.source, ok, err, v.encoded)
		}
	}
	for _, name := range Accepted() {
		if !seen[name] {
			t.Errorf("no vector shows that %s is accepted", name)
		}
	}
}
