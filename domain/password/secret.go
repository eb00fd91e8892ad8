package password

import (
	"bytes"
	"crypto/hmac"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
)

// Key is secret bytes. Like everything that holds one, it prints as
// "[secret]" in any format and log; its JSON, in which a job seals it, is
// base64.
type Key []byte

const redacted = "[secret]"

// Secrets are the projects' secrets of imports, by reference. An encoding
// holds the reference, never the secret.
type Secrets map[string]Secret

// Secret is one project's secret; one of the fields is set. Its JSON is meant
// to be sealed.
type Secret struct {
	Firebase *Firebase `json:"firebase,omitempty"`
	Pepper   *Pepper   `json:"pepper,omitempty"`
}

// Firebase holds a project's hash parameters, as its console shows them.
type Firebase struct {
	SignerKey     Key `json:"signerKey"`
	SaltSeparator Key `json:"saltSeparator"`
	Rounds        int `json:"rounds"`  // scrypt's r, 1 to 8
	MemCost       int `json:"memCost"` // log2 of scrypt's N, 1 to 17
}

// Pepper is a key that a system mixed into every password before hashing.
type Pepper struct {
	Key Key       `json:"key"`
	How PepperHow `json:"how"`
}

// PepperHow says how a pepper was applied. What it yields is what was hashed.
type PepperHow string

// The ways of peppering. The HMAC ones are of the password under the pepper,
// written in lower-case hexadecimal or in padded base64.
const (
	PepperSuffix           PepperHow = "suffix" // Devise, Clerk's bcrypt_peppered
	PepperPrefix           PepperHow = "prefix"
	PepperHMACSHA256Hex    PepperHow = "hmac-sha256-hex"
	PepperHMACSHA256Base64 PepperHow = "hmac-sha256-base64"
	PepperHMACSHA512Hex    PepperHow = "hmac-sha512-hex"
	PepperHMACSHA512Base64 PepperHow = "hmac-sha512-base64"
)

// Format prints "[secret]", whatever the verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue logs "[secret]".
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format prints "[secret]", whatever the verb.
func (Secrets) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue logs "[secret]".
func (Secrets) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format prints "[secret]", whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue logs "[secret]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format prints "[secret]", whatever the verb.
func (Firebase) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue logs "[secret]".
func (Firebase) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format prints "[secret]", whatever the verb.
func (Pepper) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue logs "[secret]".
func (Pepper) LogValue() slog.Value { return slog.StringValue(redacted) }

func (p *Pepper) apply(pw []byte) ([]byte, error) {
	switch p.How {
	case PepperSuffix:
		return append(pw, p.Key...), nil
	case PepperPrefix:
		return append(bytes.Clone(p.Key), pw...), nil
	}
	name, text, _ := strings.Cut(strings.TrimPrefix(string(p.How), "hmac-"), "-")
	alg := algoNamed(name)
	if alg == nil || !strings.HasPrefix(string(p.How), "hmac-sha") {
		return nil, refuse(ErrUnsupported, "peppered", "this way of applying a pepper is not known")
	}
	mac := hmac.New(alg.new, p.Key)
	mac.Write(pw)
	switch text {
	case "hex":
		return hex.AppendEncode(nil, mac.Sum(nil)), nil
	case "base64":
		return base64.StdEncoding.AppendEncode(nil, mac.Sum(nil)), nil
	}
	return nil, refuse(ErrUnsupported, "peppered", "this way of applying a pepper is not known")
}

// Validate says whether the secret can be used: exactly one field set, a key
// in it, costs within the bounds, a known way of peppering.
func (s Secret) Validate() error {
	switch {
	case (s.Firebase == nil) == (s.Pepper == nil):
		return refuse(ErrMalformed, "", "a secret is either Firebase's or a pepper")
	case s.Pepper != nil:
		if len(s.Pepper.Key) == 0 {
			return refuse(ErrMalformed, "peppered", "the pepper is empty")
		}
		_, err := s.Pepper.apply(nil)
		return err
	case len(s.Firebase.SignerKey) < minSum || len(s.Firebase.SignerKey) > maxSum || len(s.Firebase.SaltSeparator) > 64:
		return refuse(ErrMalformed, "firebase-scrypt", "the signer key or the salt separator has an impossible length")
	}
	d := digest{name: "firebase-scrypt"}
	return d.scrypt(s.Firebase.MemCost, s.Firebase.Rounds, 1, maxScryptR)
}

func (s Secret) equal(t Secret) bool {
	switch {
	case s.Firebase != nil && t.Firebase != nil:
		return bytes.Equal(s.Firebase.SignerKey, t.Firebase.SignerKey) && bytes.Equal(s.Firebase.SaltSeparator, t.Firebase.SaltSeparator)
	case s.Pepper != nil && t.Pepper != nil:
		return s.Pepper.How == t.Pepper.How && bytes.Equal(s.Pepper.Key, t.Pepper.Key)
	}
	return false
}

// Keep stores a secret that came with a row under base, or under base.2,
// base.3 … if another one is there already, and returns the reference. The
// same secret gets the same reference. It is not safe for concurrent use.
func (s Secrets) Keep(base string, secret Secret) string {
	ref := base
	for i := 2; ; i++ {
		have, taken := s[ref]
		if taken && have.equal(secret) {
			return ref
		}
		if !taken {
			s[ref] = secret
			return ref
		}
		ref = base + "." + strconv.Itoa(i)
	}
}

// Bind ties an encoding to an import's secret: a Firebase hash in a spelling
// without the key gets the reference of the key, any other hash is marked as
// peppered. The secret's kind has to fit.
func Bind(encoded, ref string, secret Secret) (string, error) {
	if err := secret.Validate(); err != nil {
		return "", err
	}
	if secret.Pepper != nil {
		return recognised("$muster-pepper$" + ref + "$" + encoded)
	}
	s, ok := strings.CutPrefix(encoded, "$f_scrypt$")
	if !ok {
		return "", refuse(ErrUnsupported, "firebase-scrypt", "only the spelling without a key needs one")
	}
	if _, err := parse(encoded); err != nil && !isMissing(err) {
		return "", err
	}
	sum, salt, m, r := next(&s), next(&s), next(&s), next(&s)
	return recognised("$muster-firebase$" + ref + "$ln=" + strings.TrimPrefix(m, "m=") + "," + r + "$" + salt + "$" + sum)
}

func isMissing(err error) bool {
	var e *Error
	return errors.As(err, &e) && errors.Is(e.Kind, ErrSecretMissing)
}

// Lift takes the project's key out of a Firebase hash that carries it (the
// spellings of Kratos, Supabase and ZITADEL), keeps it in secrets under base
// or a name made of it, and returns the encoding that refers to it. Any other
// encoding comes back as it is, recognised.
func Lift(encoded string, secrets Secrets, base string) (string, error) {
	d, err := parse(encoded)
	if err != nil {
		return "", err
	}
	if d.kind != kFirebase || d.ref != "" {
		return encoded, nil
	}
	return firebase(Firebase{SignerKey: d.key.bytes(), SaltSeparator: d.sep.bytes(), Rounds: d.r, MemCost: d.n},
		d.salt.text, d.sum.text, secrets, base)
}

func firebase(f Firebase, salt, sum string, secrets Secrets, base string) (string, error) {
	secret := Secret{Firebase: &f}
	if err := secret.Validate(); err != nil {
		return "", err
	}
	return FromFirebase(f, secrets.Keep(base, secret), salt, sum)
}

// recognised returns s if it is an encoding that we accept.
func recognised(s string) (string, error) {
	if _, err := parse(s); err != nil {
		return "", err
	}
	return s, nil
}
