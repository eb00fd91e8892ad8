// Package password knows every encoding of a password hash that Muster takes
// in: it recognises an encoding, bounds what verifying it may cost, verifies a
// password against it, and hashes with the house algorithm.
//
// It promises that
//
//   - [Recognise] never derives a key: an encoding whose verification would be
//     too dear is refused from its parameters alone;
//   - what Recognise accepts, [Verify] can judge, given the secrets that the
//     [Format] names; what Recognise refuses, Verify refuses the same way;
//   - derived values are compared in constant time;
//   - no error holds a part of the encoding, of the password or of a secret.
//
// The package does no I/O and reads no clock; randomness is handed in. The
// encodings, their bounds and the ones of our own are listed in docs/hashes.md.
package password

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// Limits that hold for every encoding.
const (
	// MaxEncoded is the longest encoding that is looked at, in bytes.
	MaxEncoded = 2048
	// MaxPlain is the longest password that is verified or hashed, in bytes.
	// Some of the old schemes take time quadratic in it.
	MaxPlain = 4096

	maxSalt = 256 // bytes, decoded
	minSum  = 16  // bytes, decoded: shorter, and guessing the hash becomes a way in
	maxSum  = 128 // bytes, decoded
)

// Bounds on what one verification may cost. They are maxima; the minimum is
// what the algorithm itself allows, at least 1: a weak old hash is taken in,
// called weak, and replaced at the first login.
const (
	maxBcryptCost     = 15
	maxArgon2Memory   = 1 << 20 // KiB
	maxArgon2Time     = 10
	maxArgon2Lanes    = 16
	maxScryptLogN     = 17
	maxScryptR        = 8
	maxScryptP        = 10
	maxScrypt7R       = 32         // crypt(3) always writes r=32; memory is bounded as elsewhere
	maxPBKDF2         = 10_000_000 // iterations × output blocks
	maxSHACryptRounds = 10_000_000
	maxDigestRounds   = 10_000_000
	maxPhpassLog      = 24
	maxDrupalRounds   = 500_000
	maxYescryptNR     = 1 << 20 // N × r; 128 bytes each
)

// The ways in which an encoding is refused. Every [Error] is one of them.
var (
	// ErrUnsupported: no format that we know, or one that is refused on
	// purpose (plain text, argon2d, bcrypt's 2x, a bare digest that could be
	// of several algorithms).
	ErrUnsupported = errors.New("password hash encoding not supported")
	// ErrMalformed: the format is known, but the rest does not fit it.
	ErrMalformed = errors.New("password hash is malformed")
	// ErrTooCostly: verifying it would cost more than we let a login cost.
	ErrTooCostly = errors.New("password hash costs too much to verify")
	// ErrSecretMissing: the hash was made with a project's secret that is not
	// at hand.
	ErrSecretMissing = errors.New("password hash needs a secret that is not known")
	// ErrUnusable: the source says that this user has no password.
	ErrUnusable = errors.New("password is marked as unusable")
	// ErrPlaintext: the source holds the password itself, not a hash.
	ErrPlaintext = errors.New("password is stored in plain text")
)

// Error says why an encoding was refused. Its text is fit for a report.
type Error struct {
	// Kind is one of the errors above; errors.Is finds it.
	Kind error
	// Format is the name of the format, empty when it is unknown.
	Format string
	// Reason says more, in our own words only.
	Reason string
}

// Error returns the kind's text, the format and the reason.
func (e *Error) Error() string {
	s := e.Kind.Error()
	if e.Format != "" {
		s += " (" + e.Format + ")"
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Format is what Recognise found out.
type Format struct {
	// Name is the format's name, one of [Accepted].
	Name string
	// Weakness says in a few words why the hash is weak; empty when it is
	// not. It is fit for a report.
	Weakness string
	// Secret is the reference of the import's secret that Verify will need;
	// empty when the encoding is complete.
	Secret string
}

// Weak reports whether an attacker who holds the hash has it easier than with
// what OWASP's password storage guidance asks for today.
func (f Format) Weak() bool { return f.Weakness != "" }

// Recognise names the format of an encoding and checks that it can be verified
// at a bearable cost. It takes about a microsecond and derives nothing. The
// error is always an *[Error].
func Recognise(encoded string) (Format, error) {
	d, err := parse(encoded)
	if err != nil {
		return Format{}, err
	}
	return Format{Name: d.name, Weakness: d.weak, Secret: d.ref}, nil
}

// Verify reports whether plain is the password that encoded was made of.
// secrets may be nil for encodings that need none. A password that is empty,
// longer than [MaxPlain] or holds a NUL never verifies: to bcrypt and HMAC
// some passwords with a NUL are the same as others without.
//
// Errors are an *[Error] for an encoding that Recognise refuses or a secret
// that is missing, and ctx's error if it ended before the work began; work
// that has begun is bounded by its cost and is not interrupted. Callers that
// serve many should go through a [Pool].
func Verify(ctx context.Context, encoded, plain string, secrets Secrets) (bool, error) {
	d, err := parse(encoded)
	if err != nil {
		return false, err
	}
	return verify(ctx, &d, plain, secrets, nil)
}

// verify is the one way to the expensive code. spend, when set, is told just
// before it and can stop it; tests use it to see that nothing was spent.
func verify(ctx context.Context, d *digest, plain string, secrets Secrets, spend func(*digest) error) (bool, error) {
	if !usable(plain) {
		return false, ctx.Err()
	}
	pw, err := d.prepare(plain, secrets)
	if err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if spend != nil {
		if err := spend(d); err != nil {
			return false, err
		}
	}
	return d.match(pw, secrets)
}

func usable(plain string) bool {
	return plain != "" && len(plain) <= MaxPlain && strings.IndexByte(plain, 0) < 0
}

// Accepted returns the names of all formats, sorted, for the message to a
// caller whose hash was not recognised.
func Accepted() []string { return slices.Clone(names[:]) }

var names = [...]string{
	"apr1-md5-crypt",
	"argon2i",
	"argon2id",
	"aspnet-identity-v2",
	"aspnet-identity-v3",
	"bcrypt",
	"bcrypt-peppered",
	"bcrypt-sha256",
	"digest-md5",
	"digest-sha1",
	"digest-sha224",
	"digest-sha256",
	"digest-sha384",
	"digest-sha512",
	"django-bcrypt-sha256",
	"django-md5",
	"django-pbkdf2-sha1",
	"django-pbkdf2-sha256",
	"django-scrypt",
	"django-sha1",
	"drupal7",
	"firebase-scrypt",
	"hmac-md4",
	"hmac-md5",
	"hmac-sha1",
	"hmac-sha224",
	"hmac-sha256",
	"hmac-sha256-utf16",
	"hmac-sha384",
	"hmac-sha512",
	"kratos-md5",
	"kratos-sha1",
	"kratos-sha256",
	"kratos-sha512",
	"ldap-md5",
	"ldap-pbkdf2-sha1",
	"ldap-pbkdf2-sha256",
	"ldap-pbkdf2-sha512",
	"ldap-sha",
	"ldap-sha256",
	"ldap-sha384",
	"ldap-sha512",
	"ldap-smd5",
	"ldap-ssha",
	"ldap-ssha256",
	"ldap-ssha384",
	"ldap-ssha512",
	"md5",
	"md5-crypt",
	"md5salted",
	"pbkdf2-sha1",
	"pbkdf2-sha224",
	"pbkdf2-sha256",
	"pbkdf2-sha384",
	"pbkdf2-sha512",
	"peppered",
	"phpass",
	"phpass-of-md5",
	"scrypt",
	"sha1-crypt",
	"sha256-crypt",
	"sha512-crypt",
	"werkzeug-hmac",
	"werkzeug-pbkdf2",
	"werkzeug-scrypt",
	"wordpress-6.8",
	"yescrypt",
}
