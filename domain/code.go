package domain

import (
	"crypto/subtle"
	"fmt"
	"io"
	"time"
)

// CodeSpec is the form of the codes of one kind.
type CodeSpec struct {
	// Length is the number of characters.
	Length int
	// Alphabet holds 2 to 256 distinct bytes.
	Alphabet string
	// Lifetime is how long a code is good for.
	Lifetime time.Duration
}

const (
	digits = "0123456789"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	lower  = "abcdefghijklmnopqrstuvwxyz"
)

// The kinds of codes, with the wire's lengths, alphabets and lifetimes.
var (
	InitializationCode = CodeSpec{Length: 6, Alphabet: upper + digits, Lifetime: 72 * time.Hour}
	EmailCode          = CodeSpec{Length: 6, Alphabet: upper + digits, Lifetime: time.Hour}
	PhoneCode          = CodeSpec{Length: 6, Alphabet: upper + digits, Lifetime: time.Hour}
	PasskeyCode        = CodeSpec{Length: 12, Alphabet: lower + upper + digits, Lifetime: time.Hour}
)

// MaxCodeAttempts is the number of wrong guesses after which a code is dead:
// with 36^6 codes, an attacker gets in by guessing once in 435 million codes.
const MaxCodeAttempts = 5

// NewCode draws a code from r: each character is uniform over the alphabet,
// because bytes that would favour some characters are thrown away. The code's
// ID is left empty. The error is r's.
func NewCode(r io.Reader, spec CodeSpec) (Code, error) {
	n := len(spec.Alphabet)
	fair := 256 - 256%n
	secret := make([]byte, 0, spec.Length)
	var buf [32]byte
	for len(secret) < spec.Length {
		if _, err := io.ReadFull(r, buf[:]); err != nil {
			return Code{}, fmt.Errorf("drawing a code: %w", err)
		}
		for _, b := range buf {
			if int(b) < fair && len(secret) < spec.Length {
				secret = append(secret, spec.Alphabet[int(b)%n])
			}
		}
	}
	return Code{Secret: string(secret), Lifetime: spec.Lifetime}, nil
}

func (c Code) sent(at time.Time, silent bool) SentCode {
	return SentCode{Secret: c.Secret, Lifetime: c.Lifetime, Issued: micros(at), Silent: silent}
}

// sameSecret compares in a time that depends on the lengths only. An empty
// secret equals nothing: it is what a sealed or erased event decodes to.
func sameSecret(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// PasskeyLink returns the link that a person registers a passkey with. Its
// parameters have the wire's order and are, as there, not escaped: ids that
// the service makes need no escaping, a caller's own id must be looked after
// by who builds a page on it.
func PasskeyLink(origin, userID, org string, c Code) string {
	return origin + "/ui/login/login/passwordless/init?userID=" + userID + "&orgID=" + org + "&codeID=" + c.ID + "&code=" + c.Secret
}
