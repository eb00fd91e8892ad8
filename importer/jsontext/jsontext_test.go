package jsontext

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/quick"
)

// TestNumber holds Number to what encoding/json takes for a number.
func TestNumber(t *testing.T) {
	for _, text := range []string{"", "-", "0", "-0", "00", "01", "7", "70", "-7.5", "7.", ".5", "1e3", "1E+3", "1e-03", "1e", "1e+", "+1", "--1", "1.5e2", "1x", "a", "1 "} {
		n := Number(text)
		if b := Number([]byte(text)); b != n {
			t.Errorf("%q: %d as a string, %d as bytes", text, n, b)
		}
		whole := n == len(text) && n > 0
		if want := json.Valid([]byte(text)) && strings.TrimSpace(text) == text; whole != want {
			t.Errorf("%q: a number of %d bytes, want the whole of it to be one: %v", text, n, want)
		}
	}
}

// TestAppendString reads back what was written.
func TestAppendString(t *testing.T) {
	same := func(s string) bool {
		var back string
		err := json.Unmarshal(AppendString([]byte("x"), s)[1:], &back)
		return err == nil && back == strings.ToValidUTF8(s, "\uFFFD")
	}
	for _, s := range []string{"", `"\`, "\x00\x1f\x7f", "é世🙂", "a\nb\tc", "\u2028"} {
		if !same(s) {
			t.Errorf("%q comes back as something else", s)
		}
	}
	if err := quick.Check(same, nil); err != nil {
		t.Error(err)
	}
	if got := string(AppendString(nil, "a\xffb")); got != "\"a\uFFFDb\"" {
		t.Errorf("what is not UTF-8 becomes %q", got)
	}
}
