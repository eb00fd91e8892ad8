package signin

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"io"
	"time"
)

// What has to be remembered between two steps of a ceremony is given to the
// browser, sealed with a key that all instances share: no table to fill by
// whoever opens a page, nothing to clean up, and any instance can go on. That
// a ceremony is used once is not the seal's affair: registering uses up the
// link's code, and a login leaves its challenge in the session's row, where it
// is unique.

// box seals with AES-256-GCM. What a text is for is its associated data, so
// that one ceremony's cannot pass for another's.
type box struct {
	aead cipher.AEAD
	rand io.Reader
}

func newBox(key []byte, rand io.Reader) (*box, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &box{aead: aead, rand: rand}, err
}

// envelope is the plain text of the box.
type envelope struct {
	Until time.Time       `json:"until"`
	Value json.RawMessage `json:"value"`
}

func text64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// seal makes a text that fits into a form field or a cookie.
func (b *box) seal(purpose string, until time.Time, v any) (string, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	plain, err := json.Marshal(envelope{until, value})
	if err != nil {
		return "", err
	}
	nonce := make([]byte, b.aead.NonceSize())
	if _, err := io.ReadFull(b.rand, nonce); err != nil {
		return "", err
	}
	return text64(b.aead.Seal(nonce, nonce, plain, []byte(purpose))), nil
}

// open undoes seal. ErrCeremony is all that it says of a text that is not one,
// or no longer.
func (b *box) open(purpose string, now time.Time, sealed string, v any) error {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil || len(raw) < b.aead.NonceSize() {
		return ErrCeremony
	}
	nonce, body := raw[:b.aead.NonceSize()], raw[b.aead.NonceSize():]
	plain, err := b.aead.Open(nil, nonce, body, []byte(purpose))
	if err != nil {
		return ErrCeremony
	}
	var e envelope
	if err := json.Unmarshal(plain, &e); err != nil {
		return err
	}
	if !now.Before(e.Until) {
		return ErrCeremony
	}
	return json.Unmarshal(e.Value, v)
}
