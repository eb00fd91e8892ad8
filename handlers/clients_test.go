package handlers_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/chromedp/chromedp"

	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/internal/browsertest"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
	"github.com/muster-id/muster/proto/zitadel/management/v1/managementv1connect"
)

// The clients that are not ours: grpcurl as a process, a browser, a gRPC client
// over TLS.

// tool finds a program that scripts/setup-test.sh installs. Without it there is
// no test, and no test is no success.
func tool(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			path, err = filepath.Abs(path)
			if err != nil {
				t.Fatal(err)
			}
			return path
		}
	}
	t.Fatalf("this test needs %s, which scripts/setup-test.sh installs (make test runs it)", strings.Join(names, " or "))
	return ""
}

func TestGRPCurl(t *testing.T) {
	t.Parallel()
	grpcurl := tool(t, "../.tools/bin/grpcurl-v1.9.3")
	s := start(t, nil)
	address := strings.TrimPrefix(s.url, "http://")
	run := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, grpcurl, append([]string{"-plaintext"}, args...)...).CombinedOutput()
		return string(out), err
	}
	token := "authorization: Bearer " + adminToken

	out, err := run(address, "list")
	for _, service := range []string{"zitadel.management.v1.ManagementService", "zitadel.user.v2.UserService", "zitadel.admin.v1.AdminService", "muster.v1.AccessService", "grpc.health.v1.Health"} {
		if err != nil || !strings.Contains(out, service+"\n") {
			t.Errorf("list: %v: no %s in\n%s", err, service, out)
		}
	}
	if out, err = run(address, "describe", "zitadel.management.v1.ManagementService.ImportHumanUser"); err != nil ||
		!strings.Contains(out, "rpc ImportHumanUser ( .zitadel.management.v1.ImportHumanUserRequest ) returns ( .zitadel.management.v1.ImportHumanUserResponse )") {
		t.Errorf("describe: %v\n%s", err, out)
	}
	if out, err = run("-d", `{"service":"zitadel.management.v1.ManagementService"}`, address, "grpc.health.v1.Health/Check"); err != nil || !strings.Contains(out, `"SERVING"`) {
		t.Errorf("health: %v\n%s", err, out)
	}

	request := body(with("hashedPassword", hash))
	out, err = run("-H", token, "-H", "x-zitadel-orgid: org-2", "-d", request, address, importProcedure[1:])
	var res struct {
		UserID  string `json:"userId"`
		Details struct{ Sequence, ResourceOwner string }
	}
	if err != nil || json.Unmarshal([]byte(out), &res) != nil || res.UserID == "" || res.Details.Sequence != "3" || res.Details.ResourceOwner != "org-2" {
		t.Errorf("import: %v\n%s", err, out)
	}
	out, err = run("-H", token, "-d", request, address, importProcedure[1:])
	for _, part := range []string{"Code: AlreadyExists", "Message: User already exists (V3-DKcYh)", `"@type": "type.googleapis.com/zitadel.v1.ErrorDetail"`, `"id": "V3-DKcYh"`} {
		if err == nil || !strings.Contains(out, part) {
			t.Errorf("import of a name that is taken: %v: no %s in\n%s", err, part, out)
		}
	}
	if out, err = run("-d", request, address, importProcedure[1:]); err == nil || !strings.Contains(out, "Code: Unauthenticated") {
		t.Errorf("without a token: %v\n%s", err, out)
	}
}

// browserPage is a page of somebody else's origin that speaks gRPC-Web by hand.
//
//go:embed testdata/grpcweb.html
var browserPage string

func TestGRPCWebFromABrowser(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, browserPage)
	}))
	t.Cleanup(app.Close)
	s := start(t, func(d *handlers.Deps) { d.AllowedOrigins = []string{app.URL} })
	refusing := start(t, func(d *handlers.Deps) { d.AllowedOrigins = []string{"https://app.example.org"} })

	ctx, cancel := context.WithTimeout(browsertest.Start(t), 4*time.Minute)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.Navigate(app.URL)); err != nil {
		t.Fatal(err)
	}

	// call lets the page call a method and shows what the page shows.
	type shown struct {
		Status, Message, UserID, Position, Failed string
		Sequence                                  int
	}
	call := func(service, path, token, user string) shown {
		t.Helper()
		script := fmt.Sprintf(`importHuman(%q, %q, %q, %q)`, service, path, token, user)
		out, err := chromedp.Run(ctx, chromedp.Evaluate[shown](script, chromedp.EvalAwaitPromise))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, path := range []string{importProcedure, importPath} {
		user := "browser-" + unique()
		got := call(s.url, path, adminToken, user)
		if got.Failed != "" || got.Status != "0" || len(got.UserID) != 26 || got.Position == "" || got.Sequence != 3 {
			t.Fatalf("%s: the page shows %+v", path, got)
		}
		a := s.rest(t, "GET", "/management/v1/users/"+got.UserID, "")
		if u, _ := a.raw["user"].(map[string]any); u["userName"] != user {
			t.Errorf("the user: %s", a.Body)
		}
		if got = call(s.url, path, adminToken, user); got.Status != "6" || got.Message != "User already exists (V3-DKcYh)" {
			t.Errorf("%s again: the page shows %+v", path, got)
		}
		if got = call(s.url, path, "nobody's", user); got.Status != "16" {
			t.Errorf("%s, a wrong token: the page shows %+v", path, got)
		}
	}
	if got := call(refusing.url, importProcedure, adminToken, "browser-x"); got.Failed == "" {
		t.Errorf("an origin that is not allowed: the page shows %+v", got)
	}
	if head, err := refusing.store.Head(t.Context()); err != nil || head.Position != 2 {
		t.Errorf("an origin that is not allowed has written: %v, %v", head, err)
	}
}

// certificate makes one for this machine, and the pool that believes it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "muster"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestTLS calls over TLS: gRPC over the HTTP/2 that ALPN agrees on, REST over
// both; links begin with https.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	cert, pool := certificate(t)
	server := handlers.NewHTTPServer("", handlers.New(s.deps), s.deps.Log)
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); server.ServeTLS(l, "", "") }()
	t.Cleanup(func() { server.Close(); <-served })
	url := "https://" + l.Addr().String()

	for _, c := range []struct {
		proto string
		h2    bool
		grpc  []connect.ClientOption
	}{
		{"HTTP/2.0", true, []connect.ClientOption{connect.WithGRPC()}},
		{"HTTP/1.1", false, []connect.ClientOption{connect.WithGRPCWeb()}},
	} {
		var p http.Protocols
		p.SetHTTP1(!c.h2)
		p.SetHTTP2(c.h2)
		client := &http.Client{Transport: &http.Transport{Protocols: &p, TLSClientConfig: &tls.Config{RootCAs: pool}}}
		defer client.CloseIdleConnections()
		res, err := client.Get(url + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.Proto != c.proto || res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %d", c.proto, res.Proto, res.StatusCode)
		}
		req := connect.NewRequest(&managementv1.ImportHumanUserRequest{})
		fromJSON(t, body(with("requestPasswordlessRegistration", "true")), req.Msg)
		req.Header().Set("Authorization", "Bearer "+adminToken)
		out, err := managementv1connect.NewManagementServiceClient(client, url, c.grpc...).ImportHumanUser(t.Context(), req)
		if err != nil {
			t.Fatalf("%s: %v", c.proto, err)
		}
		if link := out.Msg.GetPasswordlessRegistration().GetLink(); out.Msg.GetUserId() == "" || !strings.HasPrefix(link, url+"/ui/") {
			t.Errorf("%s: %v", c.proto, out.Msg)
		}
	}
	// Without TLS there is nothing to be had on that port.
	if res, err := http.Get("http://" + l.Addr().String() + "/readyz"); err == nil {
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("in clear text: %d", res.StatusCode)
		}
	}
}
