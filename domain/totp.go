package domain

import (
	"crypto/hmac"
	"crypto/sha1" // #nosec G505 -- RFC 6238's default, and what every authenticator app does
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"time"
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

// TOTPPeriod is the length of a TOTP's time step.
const TOTPPeriod = 30 * time.Second

// MatchTOTP finds the time step whose code of the user's TOTP secret is code:
// the one at a point in time, or one beside it, for clocks that differ. Steps
// up to used, the last one accepted, match no more. All candidates are
// compared, each in constant time.
func (u *User) MatchTOTP(code string, at time.Time) (step int64, ok bool) {
	key, err := base32Bare.DecodeString(u.TOTPSecret)
	if err != nil || len(key) == 0 {
		return 0, false
	}
	now := at.Unix() / int64(TOTPPeriod/time.Second)
	for s := now - 1; s <= now+1; s++ {
		same := subtle.ConstantTimeCompare([]byte(hotp(key, uint64(s))), []byte(code)) == 1 // #nosec G115 -- as the RFC counts
		if same && s > u.TOTPStep {
			step, ok = s, true
		}
	}
	return step, ok
}

// TOTPCode is the code of the user's TOTP secret at a point in time; "" without
// a secret.
func (u *User) TOTPCode(at time.Time) string {
	key, err := base32Bare.DecodeString(u.TOTPSecret)
	if err != nil || len(key) == 0 {
		return ""
	}
	return hotp(key, uint64(at.Unix()/int64(TOTPPeriod/time.Second))) // #nosec G115 -- as the RFC counts
}

// hotp is RFC 4226's code of six digits.
func hotp(key []byte, counter uint64) string {
	m := hmac.New(sha1.New, key)
	m.Write(binary.BigEndian.AppendUint64(nil, counter))
	sum := m.Sum(nil)
	at := sum[len(sum)-1] & 0x0f
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[at:])&0x7fffffff%1_000_000)
}
