package password

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/go-crypt/x/crypt"
	"github.com/go-crypt/x/yescrypt"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
)

// prepare returns what the computation takes in place of the plain password.
func (d *digest) prepare(plain string, secrets Secrets) ([]byte, error) {
	pw := []byte(plain)
	if d.pepper {
		secret, ok := secrets[d.ref]
		if !ok || secret.Pepper == nil {
			return nil, refuse(ErrSecretMissing, d.name, "")
		}
		var err error
		if pw, err = secret.Pepper.apply(pw); err != nil {
			return nil, err
		}
	}
	switch d.pre {
	case preMD5Hex:
		sum := md5.Sum(pw)
		pw = hex.AppendEncode(nil, sum[:])
	case preSHA256Hex:
		sum := sha256.Sum256(pw)
		pw = hex.AppendEncode(nil, sum[:])
	case preSHA256B64:
		sum := sha256.Sum256(pw)
		pw = base64.StdEncoding.AppendEncode(nil, sum[:])
	case preHMACSHA256:
		mac := hmac.New(sha256.New, d.salt.bytes())
		mac.Write(pw)
		pw = base64.StdEncoding.AppendEncode(nil, mac.Sum(nil))
	case preWordPress:
		mac := hmac.New(sha512.New384, []byte("wp-sha384"))
		mac.Write([]byte(strings.Trim(string(pw), " \t\n\r\x00\x0b")))
		pw = base64.StdEncoding.AppendEncode(nil, mac.Sum(nil))
	case preUTF16:
		var le []byte
		for _, u := range utf16.Encode([]rune(string(pw))) {
			le = binary.LittleEndian.AppendUint16(le, u)
		}
		pw = le
	}
	return pw, nil
}

// match derives and compares. parse has bounded what it costs.
func (d *digest) match(pw []byte, secrets Secrets) (bool, error) {
	switch d.kind {
	case kBcrypt:
		err := bcrypt.CompareHashAndPassword([]byte(d.text), pw)
		if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			return false, nil
		}
		return err == nil, err
	case kArgon2:
		want := d.sum.bytes()
		return equal(want, argon2Key(d.id, d.version, pw, d.salt.bytes(), uint32(d.r), uint32(d.n), uint8(d.p), uint32(len(want)))), nil
	case kScrypt:
		want := d.sum.bytes()
		got, err := scrypt.Key(pw, d.salt.bytes(), 1<<d.n, d.r, d.p, len(want))
		return err == nil && equal(want, got), err
	case kFirebase:
		return d.matchFirebase(pw, secrets)
	case kPBKDF2:
		return matchPBKDF2(d.alg, pw, d.salt.bytes(), d.n, d.sum.bytes())
	case kASPNet:
		blob := d.salt.bytes()
		return matchPBKDF2(d.alg, pw, blob[d.r:d.p], d.n, blob[d.p:])
	case kMD5Crypt:
		magic := "$1$"
		if d.name == "apr1-md5-crypt" {
			magic = "$apr1$"
		}
		return equal([]byte(d.sum.text), md5Crypt(magic, pw, []byte(d.salt.text))), nil
	case kSHACrypt:
		sum := crypt.KeySHACrypt(d.alg.new, pw, []byte(d.salt.text), d.n)
		return equal([]byte(d.sum.text), sum), nil
	case kSHA1Crypt:
		sum := crypt.KeySHA1Crypt(pw, []byte(d.salt.text), uint32(d.n))
		return equal([]byte(d.sum.text), sum), nil
	case kYescrypt:
		got, err := yescrypt.Hash(pw, []byte(d.text))
		return err == nil && equal([]byte(d.text), got), err
	case kPhpass:
		sum := encodeCrypt64(d.rounds(pw, phpassRounds, []byte(d.salt.text)))
		return equal([]byte(d.sum.text), []byte(sum[:min(len(sum), len(d.sum.text))])), nil
	case kDigest:
		return d.matchDigest(pw), nil
	case kTemplate:
		all := strings.NewReplacer("{SALT}", string(d.salt.bytes()), "{PASSWORD}", string(pw)).Replace(string(d.key.bytes()))
		h := d.alg.new()
		h.Write([]byte(all))
		return equal(d.sum.bytes(), h.Sum(nil)), nil
	case kHMAC:
		return d.matchHMAC(pw), nil
	}
	return false, refuse(ErrUnsupported, d.name, "")
}

func equal(want, got []byte) bool {
	return len(want) > 0 && subtle.ConstantTimeCompare(want, got) == 1
}

func matchPBKDF2(alg *algo, pw, salt []byte, n int, want []byte) (bool, error) {
	got, err := pbkdf2.Key(alg.new, string(pw), salt, n, len(want))
	return err == nil && equal(want, got), err
}

// matchFirebase derives a key with scrypt and encrypts the project's signer
// key with it (github.com/firebase/scrypt).
func (d *digest) matchFirebase(pw []byte, secrets Secrets) (bool, error) {
	signer, sep := d.key.bytes(), d.sep.bytes()
	want := d.sum.bytes()
	if d.ref != "" && !d.pepper {
		secret, ok := secrets[d.ref]
		if !ok || secret.Firebase == nil || len(secret.Firebase.SignerKey) != len(want) {
			return false, refuse(ErrSecretMissing, d.name, "")
		}
		signer, sep = secret.Firebase.SignerKey, secret.Firebase.SaltSeparator
	}
	key, err := scrypt.Key(pw, slices.Concat(d.salt.bytes(), sep), 1<<d.n, d.r, 1, 32)
	if err != nil {
		return false, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return false, err
	}
	got := make([]byte, len(signer))
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(got, signer)
	return equal(want, got), nil
}

func (d *digest) matchDigest(pw []byte) bool {
	want, salt := d.sum.bytes(), d.salt.bytes()
	if len(want) > d.alg.size { // LDAP: the salt follows the digest
		want, salt = want[:d.alg.size], want[d.alg.size:]
	}
	if d.lay == anyOrder {
		ps, sp := equal(want, d.rounds(pw, passwordSalt, salt)), equal(want, d.rounds(pw, saltPassword, salt))
		return ps || sp
	}
	got := d.rounds(pw, d.lay, salt)
	ok := equal(want, got[:len(want)])
	if d.either {
		mac := hmac.New(d.alg.new, salt)
		mac.Write(pw)
		ok = equal(want, mac.Sum(nil)) || ok
	}
	return ok
}

// rounds computes a digest of password and salt in d.n rounds; phpass counts
// the rounds after the first.
func (d *digest) rounds(pw []byte, lay layout, salt []byte) []byte {
	h := d.alg.new()
	var again []byte // what each further round takes after the digest
	n := d.n - 1
	switch lay {
	case passwordOnly:
		h.Write(pw)
	case passwordSalt:
		h.Write(pw)
		h.Write(salt)
	case saltPassword:
		h.Write(salt)
		h.Write(pw)
	case symfonyMerged:
		again = pw
		if len(salt) > 0 {
			again = slices.Concat(pw, []byte("{"), salt, []byte("}"))
		}
		h.Write(again)
	case phpassRounds:
		h.Write(salt)
		h.Write(pw)
		again, n = pw, d.n
	}
	sum := h.Sum(nil)
	for range n {
		h.Reset()
		h.Write(sum)
		h.Write(again)
		sum = h.Sum(sum[:0])
	}
	return sum
}

func (d *digest) matchHMAC(pw []byte) bool {
	key := d.key.bytes()
	mac := hmac.New(d.alg.new, key)
	mac.Write(pw)
	want := d.sum.bytes()
	ok := equal(want, mac.Sum(nil))
	if d.pre == preUTF16 && len(key) < 64 {
		// .NET's membership provider repeats the salt until it fills the key.
		full := make([]byte, 64)
		for i := range full {
			full[i] = key[i%len(key)]
		}
		mac = hmac.New(d.alg.new, full)
		mac.Write(pw)
		ok = equal(want, mac.Sum(nil)) || ok
	}
	return ok
}

// md5Crypt is FreeBSD's MD5-based crypt(3); Apache's differs in the magic only.
func md5Crypt(magic string, pw, salt []byte) []byte {
	inner := md5.New()
	inner.Write(pw)
	inner.Write(salt)
	inner.Write(pw)
	alt := inner.Sum(nil)

	h := md5.New()
	h.Write(pw)
	h.Write([]byte(magic))
	h.Write(salt)
	for i := len(pw); i > 0; i -= 16 {
		h.Write(alt[:min(i, 16)])
	}
	for i := len(pw); i > 0; i >>= 1 {
		if i&1 == 1 {
			h.Write([]byte{0})
		} else {
			h.Write(pw[:1])
		}
	}
	sum := h.Sum(nil)
	for i := range 1000 {
		h.Reset()
		if i&1 == 1 {
			h.Write(pw)
		} else {
			h.Write(sum)
		}
		if i%3 != 0 {
			h.Write(salt)
		}
		if i%7 != 0 {
			h.Write(pw)
		}
		if i&1 == 1 {
			h.Write(sum)
		} else {
			h.Write(pw)
		}
		sum = h.Sum(sum[:0])
	}
	// The output is in a scrambled order, in little-endian groups of three.
	order := [16]int{12, 6, 0, 13, 7, 1, 14, 8, 2, 15, 9, 3, 5, 10, 4, 11}
	var out [16]byte
	for i, j := range order {
		out[i] = sum[j]
	}
	return []byte(encodeCrypt64(out[:]))
}
