package signin_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/handlers/signin"
	"github.com/muster-id/muster/importer"
	"github.com/muster-id/muster/internal/pgtest"
	"github.com/muster-id/muster/migrations"
)

const origin = "https://id.example.org"

// rig is a database with instances of the service on it.
type rig struct {
	t    testing.TB
	url  string
	keys *eventstore.Keyring
	*signin.Service
	store *eventstore.Store
	one   *importer.Importer
}

func newRig(t testing.TB, change func(*signin.Config)) *rig {
	t.Helper()
	keys, err := eventstore.CreateKeyring(filepath.Join(t.TempDir(), "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, url: pgtest.New(t), keys: keys}
	r.Service, r.store = r.instance(change)
	r.one = &importer.Importer{Store: r.store, Passwords: password.NewPool(2, rand.Reader), Policy: domain.DefaultPolicy(), Now: time.Now, Rand: rand.Reader}
	return r
}

// instance starts one more instance of the service on the same database.
func (r *rig) instance(change func(*signin.Config)) (*signin.Service, *eventstore.Store) {
	r.t.Helper()
	ctx := context.Background()
	store, err := eventstore.New(ctx, eventstore.Config{URL: r.url, Role: migrations.ServiceRole, Keys: r.keys})
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := signin.Config{Store: store, Policy: domain.DefaultPolicy(), Passwords: password.NewPool(2, rand.Reader), Lockout: 10}
	if change != nil {
		change(&cfg)
	}
	s, err := signin.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			r.t.Errorf("what was begun behind answers did not end: %v", err)
		}
		store.Close(ctx)
	})
	return s, store
}

// person imports somebody; change may adjust the command.
func (r *rig) person(change func(*domain.ImportHuman)) (id string, passkey domain.Code) {
	r.t.Helper()
	cmd := domain.ImportHuman{
		UserName: "minnie", Profile: domain.Profile{FirstName: "Minnie", LastName: "Mouse"},
		Email: domain.Email{Address: "minnie@example.org", Verified: true},
	}
	change(&cmd)
	out, err := r.one.Import(context.Background(), importer.Caller{ID: "test", Org: "org-1"}, cmd, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if out.Passkey != nil {
		passkey = *out.Passkey
	}
	return out.Result.Stream, passkey
}

// user folds a user's events.
func (r *rig) user(id string) *domain.User {
	r.t.Helper()
	events, err := r.store.ReadStream(context.Background(), id, 0)
	if err == nil {
		err = r.store.Open(context.Background(), events)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	u := domain.NewUser(id, "org-1")
	for _, e := range events {
		fact, err := domain.Decode(e.Type, e.Schema, e.Data, e.Personal)
		if err != nil {
			r.t.Fatal(err)
		}
		u.Apply(fact)
	}
	return u
}

// types are the types of a user's events after a sequence.
func (r *rig) types(id string, after int64) (types []string) {
	r.t.Helper()
	events, err := r.store.ReadStream(context.Background(), id, after)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range events {
		types = append(types, e.Type)
	}
	return types
}

// key is a passkey in software: ES256, with user verification.
type key struct {
	id      []byte
	private *ecdsa.PrivateKey
	handle  []byte
	count   uint32
	// verified is whether the person unlocked it.
	verified bool
}

func newKey(t testing.TB) *key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := &key{id: make([]byte, 32), private: private, verified: true}
	rand.Read(k.id)
	return k
}

func text(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// options is what this key needs to know of a ceremony's.
type options struct {
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

func read(t testing.TB, raw json.RawMessage) (o options) {
	t.Helper()
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func (k *key) data(rp string, attested []byte) []byte {
	hash := sha256.Sum256([]byte(rp))
	flags := byte(0x01)
	if k.verified {
		flags |= 0x04
	}
	if attested != nil {
		flags |= 0x40
	}
	return append(binary.BigEndian.AppendUint32(append(hash[:], flags), k.count), attested...)
}

func client(kind, challenge, origin string) []byte {
	b, _ := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": false})
	return b
}

// register answers to creation options.
func (k *key) register(t testing.TB, raw json.RawMessage, origin string) []byte {
	t.Helper()
	o := read(t, raw)
	var err error
	if k.handle, err = base64.RawURLEncoding.DecodeString(o.User.ID); err != nil {
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
	attested := append(make([]byte, 16), 0, byte(len(k.id)))
	attested = append(append(attested, k.id...), public...)
	object, err := webauthncbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": k.data(o.RP.ID, attested)})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(map[string]any{
		"id": text(k.id), "rawId": text(k.id), "type": "public-key",
		"response": map[string]any{"clientDataJSON": text(client("webauthn.create", o.Challenge, origin)), "attestationObject": text(object)},
	})
	return b
}

// assert answers to request options.
func (k *key) assert(t testing.TB, raw json.RawMessage, origin string) []byte {
	t.Helper()
	o := read(t, raw)
	data, about := k.data(o.RPID, nil), client("webauthn.get", o.Challenge, origin)
	hash := sha256.Sum256(about)
	digest := sha256.Sum256(append(append([]byte{}, data...), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(map[string]any{
		"id": text(k.id), "rawId": text(k.id), "type": "public-key",
		"response": map[string]any{
			"clientDataJSON": text(about), "authenticatorData": text(data), "signature": text(signature), "userHandle": text(k.handle),
		},
	})
	return b
}

func appendOf(d domain.Decision) eventstore.Append { return access.NewAppend(d, "test", time.Now()) }
