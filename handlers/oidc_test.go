package handlers_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
)

// issuer is an OpenID Connect issuer in the test's process.
type issuer struct {
	t      *testing.T
	url    string
	asked  atomic.Int64 // requests for the keys
	broken atomic.Bool  // discovery fails

	mu   sync.Mutex // guards what follows
	keys []jose.JSONWebKey
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{t: t}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		if i.broken.Load() {
			http.Error(w, "not now", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"id_token_signing_alg_values_supported":["RS256","HS256","none"]}`, i.url, i.url+"/keys")
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		i.asked.Add(1)
		i.mu.Lock()
		defer i.mu.Unlock()
		set := jose.JSONWebKeySet{}
		for _, k := range i.keys {
			set.Keys = append(set.Keys, k.Public())
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(set); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

func newKey(t *testing.T, id string) jose.JSONWebKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return jose.JSONWebKey{Key: k, KeyID: id, Algorithm: "RS256", Use: "sig"}
}

func (i *issuer) publish(keys ...jose.JSONWebKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
}

// jwt signs the claims of a good token, with changes; nil leaves one out.
func (i *issuer) jwt(alg jose.SignatureAlgorithm, key any, changes map[string]any) string {
	i.t.Helper()
	claims := map[string]any{"iss": i.url, "sub": "ada", "aud": []string{"somebody", "muster"}, "exp": time.Now().Add(time.Hour).Unix(),
		"iat": time.Now().Unix(), "roles": []string{"admin", "ORG_USER_VIEWER", "ORG_OWNER"}, "org": "org-1"}
	maps.Copy(claims, changes)
	for k, v := range claims {
		if v == nil {
			delete(claims, k)
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		i.t.Fatal(err)
	}
	if alg == "none" {
		part := base64.RawURLEncoding.EncodeToString
		return part([]byte(`{"alg":"none"}`)) + "." + part(payload) + "."
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
	if err != nil {
		i.t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		i.t.Fatal(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return raw
}

func TestJWTsOfAnIssuer(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	first, second := newKey(t, "first"), newKey(t, "second")
	i.publish(first)
	i.broken.Store(true)
	now := time.Now
	s := start(t, func(d *handlers.Deps) {
		d.Tokens.Trust(access.NewIssuer(access.IssuerConfig{URL: i.url, Audience: "muster", RoleClaim: "roles", OrgClaim: "org", DefaultOrg: "org-1", Now: now}))
	})
	read := func(jwt string, headers ...string) answer {
		return s.rest(t, "POST", "/management/v1/users/_search", "{}", append([]string{"Authorization", "Bearer " + jwt}, headers...)...)
	}
	good := func(changes map[string]any) string { return i.jwt(jose.RS256, first, changes) }

	want(t, read(good(nil)), 503, 14, "MUSTER-issuer")
	want(t, s.rest(t, "POST", "/management/v1/users/_search", "{}"), 200, 0, "") // our own tokens do not need the issuer
	i.broken.Store(false)
	until(t, "the issuer", func() bool { return read(good(nil)).HTTP == 200 })
	asked := i.asked.Load()
	for range 20 {
		want(t, read(good(nil)), 200, 0, "")
	}
	if n := i.asked.Load(); n != asked {
		t.Errorf("keys were fetched %d times more", n-asked)
	}

	// Roles and organisations.
	imports := func(changes map[string]any, headers ...string) answer {
		return s.rest(t, "POST", importPath, body(nil), append([]string{"Authorization", "Bearer " + good(changes)}, headers...)...)
	}
	a := imports(nil)
	want(t, a, 200, 0, "")
	events, err := s.store.ReadStream(t.Context(), a.raw["userId"].(string), 0)
	if err != nil || events[0].Actor != "oidc:ada" || events[0].Org != "org-1" {
		t.Errorf("event: %+v, %v", events, err)
	}
	for _, c := range []struct {
		name         string
		changes      map[string]any
		status, code int
		id           string
	}{
		{"a text", claimed("roles", "ORG_USER_MANAGER"), 200, 0, ""},
		{"an object's keys", claimed("roles", map[string]any{"ORG_OWNER": map[string]any{"1": "x"}}), 200, 0, ""},
		{"reads only", claimed("roles", []string{"ORG_USER_VIEWER"}), 403, 7, "AUTH-5mWD2"},
		{"no role of ours", claimed("roles", []string{"admin", "org_owner"}), 403, 7, "AUTH-5mWD2"},
		{"no roles", claimed("roles", nil), 403, 7, "AUTH-5mWD2"},
		{"roles of another kind", claimed("roles", 7), 403, 7, "AUTH-5mWD2"},
		{"no organisation", claimed("org", nil), 403, 7, "AUTH-Bs7Ds"},
		{"an unknown organisation", claimed("org", "nowhere"), 403, 7, "AUTH-Bs7Ds"},
		{"an owner of all, of none", map[string]any{"org": nil, "roles": "IAM_OWNER"}, 200, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) { want(t, imports(c.changes), c.status, c.code, c.id) })
	}
	want(t, imports(nil, "x-zitadel-orgid", "org-2"), 404, 5, "AUTHZ-cdgFk")
	want(t, imports(claimed("roles", "IAM_OWNER"), "x-zitadel-orgid", "org-2"), 200, 0, "")
	a = imports(claimed("sub", "ada@example.org"))
	if events, err = s.store.ReadStream(t.Context(), a.raw["userId"].(string), 0); err != nil || !strings.HasPrefix(events[0].Actor, "oidc:sha256-") || strings.Contains(s.log.String(), "ada@example.org") {
		t.Errorf("a subject that is an address: %+v, %v", events, err)
	}

	// Refused. A forged key under a known id, and one under an unknown id.
	forged, stranger := newKey(t, "first"), newKey(t, "stranger")
	secret := jose.JSONWebKey{Key: []byte(strings.Repeat("s", 64)), KeyID: "first"}
	for name, jwt := range map[string]string{
		"another audience":  good(claimed("aud", "somebody")),
		"no audience":       good(claimed("aud", nil)),
		"another issuer":    good(claimed("iss", "https://elsewhere.example.org")),
		"expired":           good(claimed("exp", time.Now().Add(-time.Second).Unix())),
		"no expiry":         good(claimed("exp", nil)),
		"not yet good":      good(claimed("nbf", time.Now().Add(time.Hour).Unix())),
		"no subject":        good(claimed("sub", nil)),
		"unsigned":          i.jwt("none", nil, nil),
		"signed with HMAC":  i.jwt(jose.HS256, secret, nil),
		"a forged key":      i.jwt(jose.RS256, forged, nil),
		"an unknown key":    i.jwt(jose.RS256, stranger, nil),
		"a changed payload": swap(good(nil), good(claimed("roles", "IAM_OWNER"))),
		"not a JWT":         "eyJ.e.y",
	} {
		t.Run(name, func(t *testing.T) { want(t, read(jwt), 401, 16, "AUTH-7fs1e") })
	}

	// Rotation: the new key is found by itself, the old one is forgotten.
	i.publish(second)
	until(t, "the new key", func() bool { return read(i.jwt(jose.RS256, second, nil)).HTTP == 200 })
	want(t, read(good(nil)), 401, 16, "AUTH-7fs1e")

	// Forgeries do not become requests to the issuer.
	asked = i.asked.Load()
	began := time.Now()
	for range 50 {
		read(i.jwt(jose.RS256, stranger, nil))
	}
	if n, most := i.asked.Load()-asked, int64(11+time.Since(began).Seconds()); n > most {
		t.Errorf("50 forgeries became %d requests to the issuer, more than %d", n, most)
	}
	want(t, read(i.jwt(jose.RS256, second, nil)), 200, 0, "")
}

func claimed(name string, value any) map[string]any { return map[string]any{name: value} }

// swap puts another token's payload under a token's signature.
func swap(token, other string) string {
	a, b := strings.Split(token, "."), strings.Split(other, ".")
	return a[0] + "." + b[1] + "." + a[2]
}
