// Package softkey is a passkey in software, for tests: it registers and logs in
// as an authenticator and its browser do.
package softkey

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
)

// Key is a passkey in software: ES256. Its fields may be changed to make it
// misbehave.
type Key struct {
	ID []byte
	// Handle is the user handle that it was registered with.
	Handle []byte
	// Count is what it tells of how often it was used. It does not count by
	// itself.
	Count uint32
	// Verified is whether the person has unlocked it.
	Verified bool

	private *ecdsa.PrivateKey
}

// New makes a key that is unlocked.
func New(t testing.TB) *Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := &Key{ID: make([]byte, 32), private: private, Verified: true}
	rand.Read(k.ID)
	return k
}

// Text is the form that ids have in JSON.
func Text(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Options is what a key needs to know of a ceremony.
type Options struct {
	Challenge string `json:"challenge"`
	RPID      string `json:"rpId"`
	RP        struct {
		ID string `json:"id"`
	} `json:"rp"`
	User struct {
		ID string `json:"id"`
	} `json:"user"`
	Attestation            string `json:"attestation"`
	UserVerification       string `json:"userVerification"`
	AuthenticatorSelection struct {
		UserVerification string `json:"userVerification"`
	} `json:"authenticatorSelection"`
	AllowCredentials []struct {
		ID string `json:"id"`
	} `json:"allowCredentials"`
	ExcludeCredentials []struct {
		ID string `json:"id"`
	} `json:"excludeCredentials"`
}

// Read reads options, of either kind.
func Read(t testing.TB, raw json.RawMessage) (o Options) {
	t.Helper()
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func (k *Key) data(rp string, attested []byte) []byte {
	hash := sha256.Sum256([]byte(rp))
	flags := byte(0x01)
	if k.Verified {
		flags |= 0x04
	}
	if attested != nil {
		flags |= 0x40
	}
	return append(binary.BigEndian.AppendUint32(append(hash[:], flags), k.Count), attested...)
}

func client(kind, challenge, origin string) []byte {
	b, _ := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": false})
	return b
}

// Register answers to creation options.
func (k *Key) Register(t testing.TB, raw json.RawMessage, origin string) []byte {
	t.Helper()
	o := Read(t, raw)
	var err error
	if k.Handle, err = base64.RawURLEncoding.DecodeString(o.User.ID); err != nil {
		t.Fatal(err)
	}
	point, err := k.private.PublicKey.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	public, err := webauthncbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]})
	if err != nil {
		t.Fatal(err)
	}
	attested := append(make([]byte, 16), 0, byte(len(k.ID)))
	attested = append(append(attested, k.ID...), public...)
	object, err := webauthncbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": k.data(o.RP.ID, attested)})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(map[string]any{
		"id": Text(k.ID), "rawId": Text(k.ID), "type": "public-key",
		"response": map[string]any{"clientDataJSON": Text(client("webauthn.create", o.Challenge, origin)), "attestationObject": Text(object)},
	})
	return b
}

// Assert answers to request options.
func (k *Key) Assert(t testing.TB, raw json.RawMessage, origin string) []byte {
	t.Helper()
	o := Read(t, raw)
	data, about := k.data(o.RPID, nil), client("webauthn.get", o.Challenge, origin)
	hash := sha256.Sum256(about)
	digest := sha256.Sum256(append(append([]byte{}, data...), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(map[string]any{
		"id": Text(k.ID), "rawId": Text(k.ID), "type": "public-key",
		"response": map[string]any{
			"clientDataJSON": Text(about), "authenticatorData": Text(data), "signature": Text(signature), "userHandle": Text(k.Handle),
		},
	})
	return b
}
