package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/go-jose/go-jose/v4"

	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
	"github.com/muster-id/muster/proto/zitadel/management/v1/managementv1connect"
)

// certificateFiles writes a certificate for 127.0.0.1 and its key, and returns
// who trusts it.
func certificateFiles(t *testing.T) (cert, key string, trust *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pair := map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}}
	for file, block := range pair {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trust = x509.NewCertPool()
	trust.AppendCertsFromPEM(pem.EncodeToMemory(pair[cert]))
	return cert, key, trust
}

// issuerOf is an OpenID Connect issuer with one key; it returns its URL and
// what signs claims.
func issuerOf(t *testing.T) (url string, sign func(claims map[string]any) string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := jose.JSONWebKey{Key: private, KeyID: "k", Algorithm: "ES256", Use: "sig"}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"id_token_signing_alg_values_supported":["ES256"]}`, server.URL, server.URL+"/keys")
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}})
	})
	return server.URL, func(claims map[string]any) string {
		claims["iss"], claims["exp"] = server.URL, time.Now().Add(time.Hour).Unix()
		payload, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		text, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

// TestServeTLSAndOIDC: the certificate and the issuer of the environment are
// what serve uses, for REST and for gRPC.
func TestServeTLSAndOIDC(t *testing.T) {
	t.Parallel()
	cert, key, trust := certificateFiles(t)
	issuer, sign := issuerOf(t)
	s := newServer(t)
	s.url = strings.Replace(s.url, "http:", "https:", 1)
	s.env = append(s.env, "MUSTER_TLS_CERT="+cert, "MUSTER_TLS_KEY="+key,
		"MUSTER_OIDC_ISSUER="+issuer, "MUSTER_OIDC_AUDIENCE=muster", "MUSTER_OIDC_ROLE_CLAIM=r", "MUSTER_OIDC_ORG_CLAIM=o")
	client := func(h2 bool) *http.Client {
		var p http.Protocols
		p.SetHTTP1(!h2)
		p.SetHTTP2(h2)
		c := &http.Client{Transport: &http.Transport{Protocols: &p, TLSClientConfig: &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12}}}
		t.Cleanup(c.CloseIdleConnections)
		return c
	}
	s.http = client(false)
	s.start()

	jwt := func(audience, role string) string {
		return "Bearer " + sign(map[string]any{"sub": "ada", "aud": audience, "r": role, "o": "org-1"})
	}
	id := ""
	for _, c := range []struct {
		bearer string
		status int
	}{
		{jwt("muster", "ORG_USER_MANAGER"), 200}, {jwt("muster", "ORG_USER_VIEWER"), 403}, {jwt("others", "ORG_OWNER"), 401}, {"Bearer " + importToken, 200},
	} {
		req, err := http.NewRequest("POST", s.url+"/management/v1/users/human/_import", strings.NewReader(person(fmt.Sprintf("mouse-%d-%d", c.status, len(c.bearer)))))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", c.bearer)
		res, err := s.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != c.status {
			t.Fatalf("%d, want %d: %s, %v", res.StatusCode, c.status, b, err)
		}
		var answer struct{ UserID string }
		if json.NewDecoder(bytes.NewReader(b)).Decode(&answer) == nil && answer.UserID != "" {
			id = answer.UserID
		}
	}
	get := connect.NewRequest(&managementv1.GetUserByIDRequest{Id: id})
	get.Header().Set("Authorization", jwt("muster", "ORG_USER_VIEWER"))
	out, err := managementv1connect.NewManagementServiceClient(client(true), s.url, connect.WithGRPC()).GetUserByID(t.Context(), get)
	if err != nil || out.Msg.GetUser().GetId() != id {
		t.Errorf("gRPC over TLS: %v, %v", out, err)
	}
	if _, err := http.Get(s.url + "/readyz"); err == nil {
		t.Error("who does not trust the certificate gets an answer")
	}
}
