package eventstore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Keyring holds the keys that live outside the database: the key-encryption
// keys that wrap every subject's data key, each with an id, and the secret
// that claims are hashed with. It is a JSON file of mode 0600:
//
//	{"primary": "k2", "keys": {"k1": "<base64>", "k2": "<base64>"}, "claims": "<base64>"}
//
// Keys are 32 bytes, standard base64. New data keys are wrapped with the
// primary; the others are kept to unwrap what they wrapped. The claims secret
// never changes: every claim's hash depends on it.
//
// A Keyring is safe for concurrent use. It looks at the file again when it
// meets an id that it does not know, and when asked to Reload, so that a
// rotation begun by another process is followed.
type Keyring struct {
	path string

	mu      sync.RWMutex // guards what follows
	primary string
	keys    map[string]cipher.AEAD
	claims  []byte
	read    time.Time // the file's modification time when it was read

	macs sync.Pool // of *blinder: each append needs a few
}

// blinder is HMAC-SHA-256 under the claims secret, which never changes.
type blinder struct {
	mac hash.Hash
	buf []byte
}

type keyFile struct {
	Primary string            `json:"primary"`
	Keys    map[string]string `json:"keys"`
	Claims  string            `json:"claims"`
}

// ErrUnknownKey says that a data key was wrapped by a key-encryption key that
// the key file does not hold.
var ErrUnknownKey = errors.New("eventstore: the key file lacks the key that wrapped this")

// OpenKeyring reads the key file at path. A file that is not there is an error
// that wraps fs.ErrNotExist: to start with new keys beside a database that
// holds events sealed with others must be a decision, see CreateKeyring.
func OpenKeyring(path string) (*Keyring, error) {
	k := &Keyring{path: path}
	if err := k.Reload(); err != nil {
		return nil, err
	}
	return k, nil
}

// CreateKeyring writes a key file with fresh random keys, durably, and opens
// it. It fails with fs.ErrExist when path exists.
func CreateKeyring(path string) (*Keyring, error) {
	f := keyFile{Primary: "k1", Keys: map[string]string{"k1": randomKey()}, Claims: randomKey()}
	if _, err := os.Stat(path); err == nil {
		return nil, fmt.Errorf("eventstore: key file: %w", fs.ErrExist)
	}
	if err := writeKeyFile(path, f, true); err != nil {
		return nil, err
	}
	return OpenKeyring(path)
}

// Reload reads the file again. The claims secret must be the one known before.
func (k *Keyring) Reload() error {
	f, mod, err := readKeyFile(k.path)
	if err != nil {
		return err
	}
	keys := make(map[string]cipher.AEAD, len(f.Keys))
	for id, s := range f.Keys {
		raw, err := decodeKey(s)
		if err != nil {
			return fmt.Errorf("eventstore: key file: key %q: %w", id, err)
		}
		if keys[id], err = newAEAD(raw); err != nil {
			return fmt.Errorf("eventstore: key file: key %q: %w", id, err)
		}
	}
	if keys[f.Primary] == nil {
		return fmt.Errorf("eventstore: key file: the primary %q is not among the keys", f.Primary)
	}
	claims, err := decodeKey(f.Claims)
	if err != nil {
		return fmt.Errorf("eventstore: key file: claims: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.claims != nil && !hmac.Equal(k.claims, claims) {
		return errors.New("eventstore: key file: the claims secret has changed; put the former one back")
	}
	k.primary, k.keys, k.claims, k.read = f.Primary, keys, claims, mod
	return nil
}

// Changed reports whether the file was written since it was last read.
func (k *Keyring) Changed() bool {
	st, err := os.Stat(k.path)
	k.mu.RLock()
	defer k.mu.RUnlock()
	return err == nil && !st.ModTime().Equal(k.read)
}

// Primary returns the id of the key that new data keys are wrapped with.
func (k *Keyring) Primary() string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.primary
}

// AddPrimary adds a fresh random key to the file and makes it the primary. It
// returns the new id.
func (k *Keyring) AddPrimary() (string, error) {
	f, _, err := readKeyFile(k.path)
	if err != nil {
		return "", err
	}
	n := 1
	for id := range f.Keys {
		if i, err := strconv.Atoi(strings.TrimPrefix(id, "k")); err == nil && i >= n {
			n = i + 1
		}
	}
	f.Primary = "k" + strconv.Itoa(n)
	f.Keys[f.Primary] = randomKey()
	if err := writeKeyFile(k.path, f, false); err != nil {
		return "", err
	}
	return f.Primary, k.Reload()
}

// IDs returns the ids of all keys, sorted.
func (k *Keyring) IDs() []string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	ids := make([]string, 0, len(k.keys))
	for id := range k.keys {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Wrap encrypts a data key for stream with the primary, whose id it returns.
func (k *Keyring) Wrap(stream string, dataKey []byte) (kek string, wrapped []byte) {
	k.mu.RLock()
	kek, aead := k.primary, k.keys[k.primary]
	k.mu.RUnlock()
	return kek, seal(aead, dataKey, []byte(stream))
}

// Unwrap decrypts what Wrap made. It fails with ErrUnknownKey when the file
// holds no key with that id.
func (k *Keyring) Unwrap(stream, kek string, wrapped []byte) ([]byte, error) {
	k.mu.RLock()
	aead := k.keys[kek]
	k.mu.RUnlock()
	if aead == nil {
		if err := k.Reload(); err != nil {
			return nil, err
		}
		k.mu.RLock()
		aead = k.keys[kek]
		k.mu.RUnlock()
		if aead == nil {
			return nil, fmt.Errorf("%w: %q", ErrUnknownKey, kek)
		}
	}
	return open(aead, wrapped, []byte(stream))
}

// ClaimHash returns HMAC-SHA-256 of (kind, scope, value) under the claims
// secret; each part is preceded by its length, so no two claims collide.
func (k *Keyring) ClaimHash(c Claim) [32]byte {
	return k.blind("claim", c.Kind, c.Scope, c.Value)
}

// Derive returns 32 bytes that depend on the claims secret and purpose alone
// (HKDF-SHA-256), for what must be stable across rotations and kept out of the
// database, such as the keys of page tokens.
func (k *Keyring) Derive(purpose string) []byte {
	k.mu.RLock()
	defer k.mu.RUnlock()
	key, err := hkdf.Key(sha256.New, k.claims, nil, "muster/"+purpose, 32)
	if err != nil { // only for lengths beyond 255 hashes
		panic(err)
	}
	return key
}

func (k *Keyring) blind(parts ...string) (sum [32]byte) {
	b, ok := k.macs.Get().(*blinder)
	if !ok {
		k.mu.RLock()
		b = &blinder{mac: hmac.New(sha256.New, k.claims)}
		k.mu.RUnlock()
	}
	b.buf = b.buf[:0]
	for _, p := range parts {
		b.buf = binary.BigEndian.AppendUint32(b.buf, uint32(len(p)))
		b.buf = append(b.buf, p...)
	}
	b.mac.Reset()
	b.mac.Write(b.buf)
	b.buf = b.mac.Sum(b.buf[:0])
	copy(sum[:], b.buf)
	if cap(b.buf) <= 4096 { // a whole request is not kept
		k.macs.Put(b)
	}
	return sum
}

func readKeyFile(path string) (keyFile, time.Time, error) {
	var f keyFile
	st, err := os.Stat(path)
	if err != nil {
		return f, time.Time{}, fmt.Errorf("eventstore: key file: %w", err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return f, time.Time{}, fmt.Errorf("eventstore: key file: %w", err)
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		// The decoder's text may quote a piece of a key.
		return f, time.Time{}, errors.New("eventstore: key file: not the JSON that a key file holds")
	}
	return f, st.ModTime(), nil
}

// writeKeyFile replaces the file at path as a whole, or creates it when fresh:
// the keys are on disk before the name points at them, since losing them loses
// every sealed payload.
func writeKeyFile(path string, f keyFile, fresh bool) error {
	raw, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("eventstore: key file: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // mode 0600
	if err != nil {
		return fmt.Errorf("eventstore: key file: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append(raw, '\n'))
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	switch {
	case err != nil:
	case fresh:
		err = os.Link(tmp.Name(), path) // fails when somebody was faster
	default:
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("eventstore: key file: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("eventstore: key file: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func randomKey() string {
	var key [32]byte
	rand.Read(key[:]) // never fails
	return base64.StdEncoding.EncodeToString(key[:])
}

func decodeKey(s string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(raw) != 32 {
		return nil, errors.New("not 32 bytes in base64")
	}
	return raw, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

const nonceSize = 12

var errUnseal = errors.New("eventstore: a sealed value does not open: wrong key, or altered")

// seal returns nonce, ciphertext and tag. The nonce is random: one data key
// seals a few dozen values, so 96 bits cannot collide in practice.
func seal(aead cipher.AEAD, plain, ad []byte) []byte {
	out := make([]byte, nonceSize, nonceSize+len(plain)+aead.Overhead())
	rand.Read(out)
	return aead.Seal(out, out[:nonceSize], plain, ad)
}

func open(aead cipher.AEAD, sealed, ad []byte) ([]byte, error) {
	if len(sealed) < nonceSize+aead.Overhead() {
		return nil, fmt.Errorf("%w: %w", errUnseal, io.ErrUnexpectedEOF)
	}
	plain, err := aead.Open(nil, sealed[:nonceSize], sealed[nonceSize:], ad)
	if err != nil {
		return nil, errUnseal
	}
	return plain, nil
}
