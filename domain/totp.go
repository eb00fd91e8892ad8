package domain

import (
	"encoding/base32"
	"net/url"
	"strings"
)

var base32Bare = base32.StdEncoding.WithPadding(base32.NoPadding)

// maxTOTPBytes bounds what a caller may send as a TOTP secret or URI.
const maxTOTPBytes = 2048

// normaliseTOTP reads a TOTP secret in base32 or within an otpauth:// URI (the
// form that authenticator apps scan, as Google Authenticator's documentation
// describes it) and returns the secret in strict base32, upper case, without
// padding, and its length in bits.
//
// Case, blanks and padding do not matter. Bits after the last whole byte are
// dropped, as authenticator apps do; strict readers would refuse them, so they
// are not stored.
func normaliseTOTP(s string) (secret string, bits int, err error) {
	if len(s) > maxTOTPBytes {
		return "", 0, ErrTOTPInvalid
	}
	s = strings.TrimSpace(s)
	if len(s) >= 10 && strings.EqualFold(s[:10], "otpauth://") {
		if s, err = otpauthSecret(s); err != nil {
			return "", 0, err
		}
	}
	s = strings.ToUpper(strings.Join(strings.Fields(s), ""))
	s = strings.TrimRight(s, "=")
	if s == "" || strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return "", 0, ErrTOTPInvalid
	}
	// Lengths of 1, 3 and 6 modulo 8 have a last character that completes no
	// byte.
	switch len(s) % 8 {
	case 1, 3, 6:
		s = s[:len(s)-1]
	}
	key, err := base32Bare.DecodeString(s)
	if err != nil || len(key) == 0 {
		return "", 0, ErrTOTPInvalid
	}
	return base32Bare.EncodeToString(key), 8 * len(key), nil
}

// otpauthSecret returns the secret of an otpauth URI, which must ask for what
// every TOTP here is: SHA-1, six digits, 30 seconds.
func otpauthSecret(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", ErrTOTPInvalid
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", ErrTOTPInvalid
	}
	is := func(name string, values ...string) bool {
		v := q.Get(name)
		for _, w := range values {
			if strings.EqualFold(v, w) {
				return true
			}
		}
		return v == ""
	}
	if !strings.EqualFold(u.Host, "totp") || !is("algorithm", "SHA1", "SHA-1", "HmacSHA1") || !is("digits", "6") || !is("period", "30") {
		return "", ErrTOTPKind
	}
	return q.Get("secret"), nil
}
