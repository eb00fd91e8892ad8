package password

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"strings"

	"golang.org/x/crypto/md4" //nolint:staticcheck // only to verify what others left us
)

// field is a part of an encoding that holds bytes. It stays text until a
// password is verified, so that recognising allocates nothing.
type field struct {
	text string
	enc  coding
}

type coding uint8

const (
	raw    coding = iota // the text's own bytes
	b64                  // base64: standard, URL-safe or passlib's "." for "+"; padding optional
	hexa                 // hexadecimal, either case
	cry64                // crypt(3)'s ./0-9A-Za-z, little-endian, as phpass and yescrypt write bytes
	b64Hex               // base64 of hexadecimal text
)

const crypt64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Values of characters in each alphabet; 0xff is not in it.
var (
	b64Value = func() (t [256]byte) {
		fill(&t, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
		t['-'], t['.'], t['_'] = 62, 62, 63
		return t
	}()
	cryptValue = func() (t [256]byte) { fill(&t, crypt64); return t }()
	hexValue   = func() (t [256]byte) {
		fill(&t, "0123456789abcdef")
		for i, c := range "ABCDEF" {
			t[c] = byte(10 + i)
		}
		return t
	}()
)

func fill(t *[256]byte, alphabet string) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
}

// in reports whether s has only characters of an alphabet.
func in(s string, t *[256]byte) bool {
	for i := range len(s) {
		if t[s[i]] == 0xff {
			return false
		}
	}
	return true
}

func unpad(s string) string {
	s = strings.TrimSuffix(s, "=")
	return strings.TrimSuffix(s, "=")
}

// size returns how many bytes the field decodes to, and whether it does.
func (f field) size() (int, bool) {
	switch f.enc {
	case b64, b64Hex:
		s := unpad(f.text)
		return len(s) * 6 / 8, len(s)%4 != 1 && in(s, &b64Value)
	case cry64:
		return len(f.text) * 6 / 8, len(f.text)%4 != 1 && in(f.text, &cryptValue)
	case hexa:
		return len(f.text) / 2, len(f.text)%2 == 0 && in(f.text, &hexValue)
	default:
		for i := range len(f.text) {
			if f.text[i] < 0x20 || f.text[i] == 0x7f {
				return 0, false
			}
		}
		return len(f.text), true
	}
}

// between reports whether the field decodes, to lo…hi bytes.
func (f field) between(lo, hi int) bool {
	n, ok := f.size()
	return ok && lo <= n && n <= hi
}

// bytes decodes the field; parse has checked that it can.
func (f field) bytes() []byte {
	switch f.enc {
	case b64:
		return decode64(unpad(f.text), &b64Value, true)
	case cry64:
		return decode64(f.text, &cryptValue, false)
	case hexa:
		b, _ := hex.DecodeString(f.text)
		return b
	case b64Hex:
		b, _ := hex.DecodeString(string(decode64(unpad(f.text), &b64Value, true)))
		return b
	default:
		return []byte(f.text)
	}
}

// decode64 decodes six bits a character, most significant first or last. Bits
// beyond the last whole byte are dropped.
func decode64(s string, t *[256]byte, big bool) []byte {
	out := make([]byte, 0, len(s)*6/8)
	var acc uint32
	var bits uint
	for i := range len(s) {
		v := uint32(t[s[i]])
		if big {
			acc = acc<<6 | v
		} else {
			acc |= v << bits
		}
		if bits += 6; bits >= 8 {
			bits -= 8
			if big {
				out = append(out, byte(acc>>bits))
			} else {
				out = append(out, byte(acc))
				acc >>= 8
			}
		}
	}
	return out
}

// encodeCrypt64 writes bytes in crypt(3)'s alphabet, little-endian.
func encodeCrypt64(b []byte) string {
	var out strings.Builder
	out.Grow((len(b)*8 + 5) / 6)
	var acc uint32
	var bits uint
	for _, c := range b {
		acc |= uint32(c) << bits
		for bits += 8; bits >= 6; bits -= 6 {
			out.WriteByte(crypt64[acc&63])
			acc >>= 6
		}
	}
	if bits > 0 {
		out.WriteByte(crypt64[acc&63])
	}
	return out.String()
}

// encodeB64 is how our own encodings write bytes: base64, no padding.
func encodeB64(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// number reads a decimal number, 0 to 2^31-1, without sign or leading zeros.
func number(s string) (int, bool) {
	if s == "" || len(s) > 10 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n := 0
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int(c)
	}
	return n, n <= 1<<31-1
}

// next cuts s at the first '$' and moves s behind it.
func next(s *string) string {
	head, tail, _ := strings.Cut(*s, "$")
	*s = tail
	return head
}

// algo is a digest function, with the names of the formats built on it.
type algo struct {
	name string
	new  func() hash.Hash
	size int // bytes

	digest, hmac, kratos, pbkdf2 string
}

func newAlgo(name string, h func() hash.Hash, size int) *algo {
	return &algo{name, h, size, "digest-" + name, "hmac-" + name, "kratos-" + name, "pbkdf2-" + name}
}

var (
	algoMD4    = newAlgo("md4", md4.New, md4.Size)
	algoMD5    = newAlgo("md5", md5.New, md5.Size)
	algoSHA1   = newAlgo("sha1", sha1.New, sha1.Size)
	algoSHA224 = newAlgo("sha224", sha256.New224, sha256.Size224)
	algoSHA256 = newAlgo("sha256", sha256.New, sha256.Size)
	algoSHA384 = newAlgo("sha384", sha512.New384, sha512.Size384)
	algoSHA512 = newAlgo("sha512", sha512.New, sha512.Size)
)

// algoNamed returns the digest function of that name, nil for none.
func algoNamed(name string) *algo {
	switch name {
	case "md4":
		return algoMD4
	case "md5":
		return algoMD5
	case "sha1":
		return algoSHA1
	case "sha224":
		return algoSHA224
	case "sha256":
		return algoSHA256
	case "sha384":
		return algoSHA384
	case "sha512":
		return algoSHA512
	}
	return nil
}
