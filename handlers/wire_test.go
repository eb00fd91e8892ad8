package handlers_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
	userv2 "github.com/muster-id/muster/proto/zitadel/user/v2"
	zitadelv1 "github.com/muster-id/muster/proto/zitadel/v1"
)

// keys are the names in a JSON object, nested ones with dots.
func keys(v any) []string {
	var out []string
	if m, ok := v.(map[string]any); ok {
		for k, v := range m {
			out = append(out, k)
			for _, inner := range keys(v) {
				out = append(out, k+"."+inner)
			}
		}
	}
	slices.Sort(out)
	return out
}

// TestShapesOfAnswers is CONTRACT.md §2 and §7.1 key by key: what is in an
// answer, what is left out of it, and the forms of numbers and times.
func TestShapesOfAnswers(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	shape := func(a answer, want string) {
		t.Helper()
		if got := strings.Join(keys(a.raw), " "); got != want {
			t.Errorf("keys %s\nwant %s\n%s", got, want, a.Body)
		}
	}
	const details = "details details.changeDate details.creationDate details.resourceOwner details.sequence"
	plain := s.rest(t, "POST", importPath, body(with("hashedPassword", hash)))
	shape(plain, details+" userId")
	shape(s.rest(t, "POST", importPath, body(with("requestPasswordlessRegistration", "true"))),
		details+" passwordlessRegistration passwordlessRegistration.expiration passwordlessRegistration.lifetime passwordlessRegistration.link userId")
	if d := plain.raw["details"].(map[string]any); d["sequence"] != "3" || d["resourceOwner"] != "org-1" {
		t.Errorf("details: %v", d)
	} else if stamp := d["creationDate"].(string); !strings.HasSuffix(stamp, "Z") {
		t.Errorf("creationDate %q", stamp)
	} else if _, fraction, ok := strings.Cut(strings.TrimSuffix(stamp, "Z"), "."); ok && len(fraction) != 3 && len(fraction) != 6 {
		t.Errorf("creationDate %q has a fraction of %d digits", stamp, len(fraction))
	}
	// Zero values are left out: an address that is not verified has no flag.
	id, _ := s.add(t, map[string]string{"email": `{"email":"a@b.c"}`, "phone": `{"phone":"+4179123"}`})
	a := s.rest(t, "GET", "/management/v1/users/"+id, "")
	if human := a.raw["user"].(map[string]any)["human"].(map[string]any); strings.Join(keys(human["email"]), " ") != "email" || strings.Join(keys(human["phone"]), " ") != "phone" {
		t.Errorf("%s", a.Body)
	}
	shape(s.rest(t, "POST", importPath, `{}`), "code message")
	shape(s.rest(t, "POST", importPath, `{`), "code message")
	shape(s.rest(t, "POST", importPath, `{}`, "Authorization", ""), "code message")
	taken := s.rest(t, "POST", importPath, body(map[string]string{"userName": `"taken"`}))
	want(t, taken, 200, 0, "")
	taken = s.rest(t, "POST", importPath, body(map[string]string{"userName": `"Taken"`}))
	if got, want := string(taken.Body), `{"code":6,"message":"User already exists (V3-DKcYh)","details":[{"@type":"type.googleapis.com/zitadel.v1.ErrorDetail","id":"V3-DKcYh","message":"User already exists"}]}`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if a := s.rest(t, "POST", importPath, body(with("hashedPassword", `{"value":"garbage"}`))); !strings.HasPrefix(a.Message, "Password hash encoding not supported. Accepted are ") || !strings.Contains(a.Message, ", bcrypt, ") {
		t.Errorf("a hash nobody can verify: %s", a.Message)
	}
}

// TestContentTypes is §1.2's last row and §8's: what the content type makes of
// a body, on the REST URL and on the method's.
func TestContentTypes(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	post := func(client *http.Client, path, kind string, content []byte) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, s.url+path, bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		req.Header["Content-Type"] = nil
		if kind != "" {
			req.Header.Set("Content-Type", kind)
		}
		req.Header.Set("Authorization", "Bearer "+adminToken)
		req.Header.Set("TE", "trailers")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, b
	}
	for _, kind := range []string{"application/json", "application/json; charset=utf-8", "", "text/plain", "application/x-www-form-urlencoded", "application/xml", "nonsense", "application/proto"} {
		if res, b := post(s.http, importPath, kind, []byte(body(nil))); res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/json" || !bytes.Contains(b, []byte(`"userId"`)) {
			t.Errorf("%q: %d %q %s", kind, res.StatusCode, res.Header.Get("Content-Type"), b)
		}
	}
	for kind, marshal := range map[string]func(proto.Message) ([]byte, error){
		"application/grpc": proto.Marshal, "application/grpc+proto": proto.Marshal, "application/grpc+json": protojson.Marshal,
		"application/grpc-web": proto.Marshal, "application/grpc-web+proto": proto.Marshal, "application/grpc-web+json": protojson.Marshal,
	} {
		for _, path := range []string{importPath, importProcedure} {
			req := &managementv1.ImportHumanUserRequest{}
			fromJSON(t, body(nil), req)
			m, err := marshal(req)
			if err != nil {
				t.Fatal(err)
			}
			res, b := post(s.h2, path, kind, framed(m))
			if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), kind) || len(b) < 5 || b[0] != 0 {
				t.Errorf("%s at %s: %d %v %q", kind, path, res.StatusCode, res.Header, b)
				continue
			}
			browsers := strings.Contains(kind, "web") // what is for them and for caches is in no other gRPC answer
			if h := res.Header; browsers != (h.Get("X-Content-Type-Options") == "nosniff") || browsers != (h.Get("Cache-Control") == "no-store") || browsers != (h.Get("Expires") != "") || h.Get("X-Request-Id") == "" {
				t.Errorf("%s at %s: headers %v", kind, path, h)
			}
			if !strings.Contains(kind, "web") && res.Trailer.Get("Grpc-Status") != "0" || strings.Contains(kind, "web") && !bytes.Contains(bytes.ToLower(b), []byte("grpc-status: 0")) {
				t.Errorf("%s at %s: trailers %v, %q", kind, path, res.Trailer, b)
			}
		}
	}
	// Lines of JSON are another call, and not of this service's making here.
	if res, b := post(s.http, importPath, "application/x-ndjson", []byte(body(nil))); res.StatusCode != 501 {
		t.Errorf("lines: %d %s", res.StatusCode, b)
	}
}

// framed is a message as gRPC sends it.
func framed(m []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
}

// grpcStatus reads google.rpc.Status.
func grpcStatus(t *testing.T, b []byte) (code uint64, message string, details []proto.Message) {
	t.Helper()
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			t.Fatal(protowire.ParseError(size))
		}
		b = b[size:]
		if typ == protowire.VarintType {
			code, size = protowire.ConsumeVarint(b)
			b = b[size:]
			continue
		}
		v, size := protowire.ConsumeBytes(b)
		if size < 0 {
			t.Fatal(protowire.ParseError(size))
		}
		b = b[size:]
		switch n {
		case 2:
			message = string(v)
		case 3:
			var detail anypb.Any
			if err := proto.Unmarshal(v, &detail); err != nil {
				t.Fatal(err)
			}
			m, err := detail.UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			details = append(details, m)
		}
	}
	return code, message, details
}

// TestStatusInTrailers is §7.1's third point, by hand: the status of a gRPC
// answer is in its trailers, texts percent-encoded, with the detail; a failure
// without an id has none. What cannot be read is refused before it is asked who
// sends it (§7.3).
func TestStatusInTrailers(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	call := func(content []byte, headers ...string) http.Header {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, s.url+importProcedure, bytes.NewReader(framed(content)))
		if err != nil {
			t.Fatal(err)
		}
		setHeaders(req.Header, headers)
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("TE", "trailers")
		res, err := s.h2.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if b, err := io.ReadAll(res.Body); err != nil || len(b) > 0 || res.StatusCode != 200 {
			t.Errorf("%d, %d bytes, %v", res.StatusCode, len(b), err)
		}
		all := maps.Clone(res.Header) // a failure without headers has its status there
		maps.Copy(all, res.Trailer)
		return all
	}
	req := &managementv1.ImportHumanUserRequest{}
	fromJSON(t, body(with("userName", `" "`)), req)
	m, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	h := call(m, "Accept-Language", "fr")
	if h.Get("Grpc-Status") != "3" || h.Get("Grpc-Message") != "Le nom d'utilisateur est vide (COMMAND-00p2b)" {
		t.Errorf("status %q, message %q", h.Get("Grpc-Status"), h.Get("Grpc-Message"))
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(h.Get("Grpc-Status-Details-Bin"), "="))
	if err != nil {
		t.Fatal(err)
	}
	code, message, details := grpcStatus(t, raw)
	if code != 3 || message != "Le nom d'utilisateur est vide (COMMAND-00p2b)" || len(details) != 1 ||
		!proto.Equal(details[0], &zitadelv1.ErrorDetail{Id: "COMMAND-00p2b", Message: "Le nom d'utilisateur est vide"}) {
		t.Errorf("%d %q %v", code, message, details)
	}
	fromJSON(t, body(phone("+")), req)
	if m, err = proto.Marshal(req); err != nil {
		t.Fatal(err)
	}
	if h := call(m, "Accept-Language", "es"); h.Get("Grpc-Message") != "El n%C3%BAmero de tel%C3%A9fono no es v%C3%A1lido (PHONE-so0wa)" {
		t.Errorf("message %q", h.Get("Grpc-Message"))
	}
	if h := call(nil); h.Get("Grpc-Status") != "3" || h.Get("Grpc-Status-Details-Bin") != "" || !strings.HasPrefix(h.Get("Grpc-Message"), "invalid ImportHumanUserRequest.UserName: ") {
		t.Errorf("validation: %v", h)
	}
	if h := call([]byte{0xff}, "Authorization", ""); h.Get("Grpc-Status") != "3" {
		t.Errorf("a message that is none, from nobody: %v", h)
	}
	if h := call(nil, "Authorization", ""); h.Get("Grpc-Status") != "16" || h.Get("Grpc-Message") != "auth header missing" {
		t.Errorf("from nobody: %v", h)
	}
	// Fields of a later wire, among them recovery codes, are passed over (§1.1).
	fromJSON(t, body(nil), req)
	req.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 11, protowire.BytesType), []byte{10, 1, 'x'}))
	if _, a := rpc[managementv1.ImportHumanUserRequest, managementv1.ImportHumanUserResponse](t, s, 0, importProcedure, req); a.Code != 0 {
		t.Errorf("a field of a later wire: %d %s", a.Code, a.Message)
	}
}

// TestOrderOfChecks is §7.3: each row breaks two rules, and is told of the one
// that is judged first, over every protocol.
func TestOrderOfChecks(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	viewer := "Bearer " + s.token(t, "org-1", access.OrgUserViewer)
	manager := "Bearer " + s.token(t, "org-2", access.OrgUserManager)
	for _, c := range []struct {
		name, body string
		headers    []string
		status     int
		code       int
		id         string
	}{
		{"authentication before validation", `{}`, []string{"Authorization", ""}, 401, 16, ""},
		{"the token before the organisation", `{}`, []string{"Authorization", "Bearer x", "x-zitadel-orgid", "nowhere"}, 401, 16, "AUTH-7fs1e"},
		{"the organisation before the permission", `{}`, []string{"Authorization", viewer, "x-zitadel-orgid", "nowhere"}, 403, 7, "AUTH-Bs7Ds"},
		{"membership before the permission", `{}`, []string{"Authorization", viewer, "x-zitadel-orgid", "org-2"}, 404, 5, "AUTHZ-cdgFk"},
		{"membership before validation", `{}`, []string{"Authorization", manager, "x-zitadel-orgid", "org-1"}, 404, 5, "AUTHZ-cdgFk"},
		{"permission before validation", `{}`, []string{"Authorization", viewer}, 403, 7, "AUTH-5mWD2"},
		{"validation before the command", body(map[string]string{"userName": `" "`, "idps": `[{}]`}), nil, 400, 3, ""},
	} {
		s.everyProtocol(t, func() string { return c.body }, c.headers, func(t *testing.T, protocol string, a answer) {
			if a.Code != c.code || a.id() != c.id || a.HTTP != 0 && a.HTTP != c.status {
				t.Errorf("%s over %s: HTTP %d, code %d, %q %s; want %d, %d, %q", c.name, protocol, a.HTTP, a.Code, a.id(), a.Message, c.status, c.code, c.id)
			}
		})
	}
	want(t, s.rest(t, "POST", importPath, `{`, "Authorization", ""), 400, 3, "") // JSON before all else

	// A token's rate comes after the token and before the organisation, and
	// whoever is over it is told when to come back, whatever was called.
	s = start(t, func(d *handlers.Deps) { d.Rate, d.Burst = 1e-9, 1 })
	for _, c := range []struct{ method, path, body, kind string }{
		{"POST", importPath, `{}`, "application/json"},
		{"GET", "/v1/events", "", "application/json"},
		{"POST", importPath, "", "application/x-ndjson"},
	} {
		headers := []string{"Authorization", "Bearer " + s.token(t, "org-1", access.OrgUserManager), "x-zitadel-orgid", "nowhere", "Content-Type", c.kind}
		want(t, s.rest(t, c.method, c.path, c.body, headers...), 403, 7, "AUTH-Bs7Ds")
		a := s.rest(t, c.method, c.path, c.body, headers...)
		want(t, a, 429, 8, "QUOTA-vjAy8")
		if a.Header.Get("Retry-After") != "1" {
			t.Errorf("%s %s: Retry-After %q", c.method, c.path, a.Header.Get("Retry-After"))
		}
	}
}

// TestMetadataInHeaders is §8's last header: what REST calls send as
// Grpc-Metadata-… is what gRPC calls send without it.
func TestMetadataInHeaders(t *testing.T) {
	t.Parallel()
	s := start(t, withJobs)
	owner := func(headers ...string) any {
		t.Helper()
		a := s.rest(t, "POST", importPath, body(nil), headers...)
		want(t, a, 200, 0, "")
		return a.raw["details"].(map[string]any)["resourceOwner"]
	}
	if org := owner("Grpc-Metadata-x-zitadel-orgid", "org-2"); org != "org-2" {
		t.Errorf("the user is %v's", org)
	}
	if org := owner("grpc-metadata-X-Zitadel-OrgID", "org-2", "x-zitadel-orgid", "org-1"); org != "org-1" {
		t.Errorf("beside the header itself the user is %v's", org)
	}
	if org := owner("Authorization", "", "Grpc-Metadata-Authorization", "Bearer "+s.token(t, "org-2", access.OrgOwner), "Grpc-Metadata-Other", "x"); org != "org-2" {
		t.Errorf("by the token's organisation the user is %v's", org)
	}
	a := s.rest(t, "POST", importPath, body(with("userName", `" "`)), "Grpc-Metadata-Accept-Language", "de", "Accept-Language", "")
	if a.Message != "Der Benutzername ist leer (COMMAND-00p2b)" {
		t.Errorf("message %q", a.Message)
	}
	manager := "Bearer " + s.token(t, "org-2", access.OrgUserManager)
	want(t, s.rest(t, "POST", importPath, body(nil), "Authorization", manager, "Grpc-Metadata-x-zitadel-orgid", "org-1"), 404, 5, "AUTHZ-cdgFk")
	lines := s.bulk(t, s.http, "", strings.NewReader(body(nil)), "Grpc-Metadata-x-zitadel-orgid", "org-2")
	if lines[0].Details.ResourceOwner != "org-2" {
		t.Errorf("lines: %+v", lines[0])
	}
	// To gRPC that is a name like any other.
	req := &managementv1.ImportHumanUserRequest{}
	fromJSON(t, body(nil), req)
	res, _ := rpc[managementv1.ImportHumanUserRequest, managementv1.ImportHumanUserResponse](t, s, 0, importProcedure, req, "Grpc-Metadata-x-zitadel-orgid", "org-2")
	if org := res.GetDetails().GetResourceOwner(); org != "org-1" {
		t.Errorf("over gRPC the user is %q's", org)
	}
}

// TestAuthenticationIsNotTranslated is §7.1's last point: what is refused before
// the command has the same text in every language.
func TestAuthenticationIsNotTranslated(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	viewer := "Bearer " + s.token(t, "org-1", access.OrgUserViewer)
	manager := "Bearer " + s.token(t, "org-2", access.OrgUserManager)
	for text, headers := range map[string][]string{
		"auth header missing":                        {"Authorization", ""},
		"invalid auth header (AUTH-toLo1)":           {"Authorization", "Basic x"},
		"Errors.Token.Invalid (AUTH-7fs1e)":          {"Authorization", "Bearer x"},
		"Organisation doesn't exist (AUTH-Bs7Ds)":    {"x-zitadel-orgid", "nowhere"},
		"membership not found (AUTHZ-cdgFk)":         {"Authorization", manager, "x-zitadel-orgid", "org-1"},
		"No matching permissions found (AUTH-5mWD2)": {"Authorization", viewer},
	} {
		s.everyProtocol(t, func() string { return body(nil) }, append(headers, "Accept-Language", "it"), func(t *testing.T, protocol string, a answer) {
			if a.Message != text {
				t.Errorf("%s: %q, want %q", protocol, a.Message, text)
			}
		})
	}
}

// TestWhatIsStored is §1.3 to §1.5: the form in which an import's fields come
// back.
func TestWhatIsStored(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	user := func(changes map[string]string) map[string]any {
		id, _ := s.add(t, changes)
		return s.rest(t, "GET", "/management/v1/users/"+id, "").raw["user"].(map[string]any)
	}
	in := func(m map[string]any, path string) any {
		var v any = m
		for name := range strings.SplitSeq(path, ".") {
			inner, _ := v.(map[string]any)
			v = inner[name]
		}
		return v
	}
	for _, c := range []struct {
		name    string
		changes map[string]string
		path    string
		want    any
	}{
		{"blanks around a user name", with("userName", `"  Ada Stored "`), "userName", "Ada Stored"},
		{"blanks around an e-mail address", email("  Ada@Mouse.com "), "human.email.email", "Ada@Mouse.com"},
		{"blanks around a first name", profile("firstName", `" Ada "`), "human.profile.firstName", " Ada "},
		{"no display name", nil, "human.profile.displayName", "Minnie Mouse"},
		{"a display name", profile("displayName", `"Mini"`), "human.profile.displayName", "Mini"},
		{"gender by number", profile("gender", "3"), "human.profile.gender", "GENDER_DIVERSE"},
		{"a number outside the set", profile("gender", "77"), "human.profile.gender", nil},
		{"a name outside the set", profile("gender", `"GENDER_X"`), "human.profile.gender", nil},
		{"phone with blanks", phone("+41 71 000 00 00"), "human.phone.phone", "+41710000000"},
		{"a short phone number", phone("+4179123"), "human.phone.phone", "+4179123"},
		{"phone with letters", phone("+1-800-FLOWERS"), "human.phone.phone", "+18003569377"},
		{"phone with brackets", phone("+49 (0)30 123456"), "human.phone.phone", "+4930123456"},
		{"phone with an extension", phone("+41 79 123 45 67 ext 3"), "human.phone.phone", "+41791234567"},
		{"no language", nil, "human.profile.preferredLanguage", "und"},
		{"language empty", profile("preferredLanguage", `""`), "human.profile.preferredLanguage", "und"},
		{"language: a sentence", profile("preferredLanguage", `"not valid"`), "human.profile.preferredLanguage", "und"},
		{"language: its name", profile("preferredLanguage", `"english"`), "human.profile.preferredLanguage", "und"},
		{"language: xx", profile("preferredLanguage", `"xx"`), "human.profile.preferredLanguage", "und"},
		{"language: zz", profile("preferredLanguage", `"zz"`), "human.profile.preferredLanguage", "und"},
		{"language: en", profile("preferredLanguage", `"en"`), "human.profile.preferredLanguage", "en"},
		{"language: EN", profile("preferredLanguage", `"EN"`), "human.profile.preferredLanguage", "en"},
		{"language: en-", profile("preferredLanguage", `"en-"`), "human.profile.preferredLanguage", "en"},
		{"language: de_CH", profile("preferredLanguage", `"de_CH"`), "human.profile.preferredLanguage", "de-CH"},
		{"language: de-CH", profile("preferredLanguage", `"de-CH"`), "human.profile.preferredLanguage", "de-CH"},
		{"language: fr-FRA", profile("preferredLanguage", `"fr-FRA"`), "human.profile.preferredLanguage", "fr"},
		{"language: iw", profile("preferredLanguage", `"iw"`), "human.profile.preferredLanguage", "he"},
		{"verified, and no credential", nil, "human.email.isEmailVerified", true},
		{"state after an initialization code", nil, "state", "USER_STATE_INITIAL"},
		{"state with a hash", with("hashedPassword", hash), "state", "USER_STATE_ACTIVE"},
		{"state with a link, unverified", map[string]string{"email": `{"email":"a@b.c"}`, "idps": `[{"configId":"c","externalUserId":"stored"}]`}, "state", "USER_STATE_ACTIVE"},
	} {
		if got := in(user(c.changes), c.path); got != c.want {
			t.Errorf("%s: %s is %v, want %v", c.name, c.path, got, c.want)
		}
	}
	// E-mail addresses are not unique; links are by both of their parts, and
	// not by what these look like one behind the other.
	for _, link := range []string{`{"configId":"ab","externalUserId":"c"}`, `{"configId":"a","externalUserId":"bc"}`} {
		want(t, s.rest(t, "POST", importPath, body(with("idps", "["+link+"]"))), 200, 0, "")
	}
	want(t, s.rest(t, "POST", importPath, body(with("idps", `[{"configId":"AB","externalUserId":"C"}]`))), 409, 6, "V3-DKcYh")
}

// TestDefaultLimits is §8's largest request, as the service has it when nobody
// says otherwise.
func TestDefaultLimits(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	padding := func(n int) string { return body(with("unknown", quoted(strings.Repeat("x", n)))) }
	small := len(padding(0))
	want(t, s.rest(t, "POST", importPath, padding(4<<20-small-10)), 200, 0, "")
	a := s.rest(t, "POST", importPath, padding(4<<20))
	want(t, a, 429, 8, "")
	if a.Message != "request is too large" {
		t.Errorf("message %q", a.Message)
	}
}

// wire is the wire's side of our messages: name, number, JSON name and type of
// each field (CONTRACT.md §1.1, §2, §7.1, §12, §13).
var wire = map[string]string{
	"zitadel.management.v1.ImportHumanUserRequest": "1 userName string, 2 profile .Profile, 3 email .Email, 4 phone .Phone, 5 password string, 6 hashedPassword .HashedPassword, " +
		"7 passwordChangeRequired bool, 8 requestPasswordlessRegistration bool, 9 otpCode string, 10 idps []*.IDP",
	"zitadel.management.v1.ImportHumanUserRequest.Profile":                   "1 firstName string, 2 lastName string, 3 nickName string, 4 displayName string, 5 preferredLanguage string, 6 gender zitadel.user.v1.Gender",
	"zitadel.management.v1.ImportHumanUserRequest.Email":                     "1 email string, 2 isEmailVerified bool",
	"zitadel.management.v1.ImportHumanUserRequest.Phone":                     "1 phone string, 2 isPhoneVerified bool",
	"zitadel.management.v1.ImportHumanUserRequest.HashedPassword":            "1 value string",
	"zitadel.management.v1.ImportHumanUserRequest.IDP":                       "1 configId string, 2 externalUserId string, 3 displayName string",
	"zitadel.management.v1.ImportHumanUserResponse":                          "1 userId string, 2 details zitadel.v1.ObjectDetails, 3 passwordlessRegistration .PasswordlessRegistration",
	"zitadel.management.v1.ImportHumanUserResponse.PasswordlessRegistration": "1 link string, 2 lifetime google.protobuf.Duration, 3 expiration google.protobuf.Duration",
	"zitadel.v1.ObjectDetails":                                               "1 sequence uint64, 2 creationDate google.protobuf.Timestamp, 3 changeDate google.protobuf.Timestamp, 4 resourceOwner string",
	"zitadel.v1.ErrorDetail":                                                 "1 id string, 2 message string",
	"zitadel.user.v2.AddHumanUserRequest": "1 userId string, 2 username string, 4 profile zitadel.user.v2.SetHumanProfile, 5 email zitadel.user.v2.SetHumanEmail, 6 metadata []*zitadel.user.v2.SetMetadataEntry, " +
		"7 password zitadel.user.v2.Password, 8 hashedPassword zitadel.user.v2.HashedPassword, 9 idpLinks []*zitadel.user.v2.IDPLink, 10 phone zitadel.user.v2.SetHumanPhone, " +
		"11 organization zitadel.object.v2.Organization, 12 totpSecret string",
	"zitadel.user.v2.AddHumanUserResponse": "1 userId string, 2 details zitadel.object.v2.Details, 3 emailCode string, 4 phoneCode string",
	"zitadel.object.v2.Details":            "1 sequence uint64, 2 changeDate google.protobuf.Timestamp, 3 resourceOwner string, 4 creationDate google.protobuf.Timestamp",
	"zitadel.admin.v1.ImportDataRequest":   "1 dataOrgs zitadel.admin.v1.ImportDataOrg, 9 timeout string",
	"zitadel.v1.v1.DataHumanUser":          "1 userId string, 2 user zitadel.management.v1.ImportHumanUserRequest, 3 state zitadel.user.v1.UserState",
	"zitadel.admin.v1.ImportDataError":     "1 type string, 2 id string, 3 message string",
}

// TestNumbersOfTheWire holds our .proto files to the wire.
func TestNumbersOfTheWire(t *testing.T) {
	for name, want := range wire {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var fields []protoreflect.FieldDescriptor
		for i := range d.(protoreflect.MessageDescriptor).Fields().Len() {
			fields = append(fields, d.(protoreflect.MessageDescriptor).Fields().Get(i))
		}
		slices.SortFunc(fields, func(a, b protoreflect.FieldDescriptor) int { return int(a.Number() - b.Number()) })
		var got []string
		for _, f := range fields {
			typ := f.Kind().String()
			switch {
			case f.Message() != nil:
				typ = strings.TrimPrefix(string(f.Message().FullName()), name)
			case f.Enum() != nil:
				typ = string(f.Enum().FullName())
			}
			if f.IsList() {
				typ = "[]*" + typ
			}
			got = append(got, fmt.Sprintf("%d %s %s", f.Number(), f.JSONName(), typ))
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("%s:\n     %s\nwant %s", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"zitadel.user.v1.Gender":    "GENDER_UNSPECIFIED GENDER_FEMALE GENDER_MALE GENDER_DIVERSE",
		"zitadel.user.v1.UserState": "USER_STATE_UNSPECIFIED USER_STATE_ACTIVE USER_STATE_INACTIVE USER_STATE_DELETED USER_STATE_LOCKED USER_STATE_SUSPEND USER_STATE_INITIAL",
	} {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		values := d.(protoreflect.EnumDescriptor).Values()
		for i, v := range strings.Fields(want) {
			if got := values.ByNumber(protoreflect.EnumNumber(i)); got == nil || string(got.Name()) != v {
				t.Errorf("%s: %d is not %s", name, i, v)
			}
		}
	}
}

// secondCase is one AddHumanUser and what it has to come to.
type secondCase struct {
	name    string
	fields  map[string]string
	code    int
	id      string
	message string
	events  int
}

// secondCases are CONTRACT.md §13's rows. Every user has its own address.
func secondCases() []secondCase {
	long := func(n int, s string) string { return quoted(strings.Repeat(s, n)) }
	const (
		in     = "invalid AddHumanUserRequest."
		inside = ": embedded message failed validation | caused by: invalid "
	)
	bad := func(name, message, field, value string) secondCase {
		return secondCase{name: name, code: invalid, message: message, fields: with(field, value)}
	}
	good := func(name string, events int, fields map[string]string) secondCase {
		return secondCase{name: name, events: events, fields: fields}
	}
	person := func(field, value string) string {
		p := map[string]string{"givenName": `"Minnie"`, "familyName": `"Mouse"`, field: value}
		var parts []string
		for k, v := range p {
			if v != "" {
				parts = append(parts, fmt.Sprintf("%q:%s", k, v))
			}
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	address := func(rest string) string { return fmt.Sprintf(`{"email":"v%s@example.org"%s}`, unique(), rest) }
	const goodHash = `{"hash":"$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"}`
	return []secondCase{
		// Validation.
		bad("id empty", in+"UserId: "+oneTo200, "userId", `""`),
		bad("id too long", in+"UserId: "+oneTo200, "userId", long(201, "x")),
		bad("user name empty", in+"Username: "+oneTo200, "username", `""`),
		bad("user name too long", in+"Username: "+oneTo200, "username", long(201, "ü")),
		bad("no profile", in+"Profile: value is required", "profile", ""),
		bad("no e-mail", in+"Email: value is required", "email", ""),
		bad("no given name", in+"Profile"+inside+"SetHumanProfile.GivenName: "+oneTo200, "profile", person("givenName", "")),
		bad("family name too long", in+"Profile"+inside+"SetHumanProfile.FamilyName: "+oneTo200, "profile", person("familyName", long(201, "é"))),
		bad("nick name too long", in+"Profile"+inside+"SetHumanProfile.NickName: "+atMost200, "profile", person("nickName", long(201, "é"))),
		bad("display name too long", in+"Profile"+inside+"SetHumanProfile.DisplayName: "+atMost200, "profile", person("displayName", long(201, "é"))),
		bad("language too long", in+"Profile"+inside+"SetHumanProfile.PreferredLanguage: value length must be at most 10 runes", "profile", person("preferredLanguage", long(11, "e"))),
		bad("e-mail empty", in+"Email"+inside+"SetHumanEmail.Email: "+oneTo200, "email", `{}`),
		bad("e-mail that is none", in+"Email"+inside+"SetHumanEmail.Email: value must be a valid email address | caused by: mail: missing '@' or angle-addr", "email", `{"email":"x"}`),
		bad("a template too long", in+"Email"+inside+"SetHumanEmail.SendCode"+inside+"SendEmailVerificationCode.UrlTemplate: "+oneTo200, "email", address(`,"sendCode":{"urlTemplate":`+long(201, "x")+`}`)),
		bad("phone too long", in+"Phone"+inside+"SetHumanPhone.Phone: "+atMost200, "phone", `{"phone":`+long(201, "1")+`}`),
		bad("phone not verified, said aloud", in+"Phone"+inside+"SetHumanPhone.IsVerified: value must equal true", "phone", `{"phone":"+41791234567","isVerified":false}`),
		bad("password too long", in+"Password"+inside+"Password.Password: "+oneTo200, "password", `{"password":`+long(201, "x")+`}`),
		bad("password empty", in+"Password"+inside+"Password.Password: "+oneTo200, "password", `{}`),
		bad("hash empty", in+"HashedPassword"+inside+"HashedPassword.Hash: "+oneTo200, "hashedPassword", `{}`),
		bad("hash too long", in+"HashedPassword"+inside+"HashedPassword.Hash: "+oneTo200, "hashedPassword", `{"hash":`+long(201, "x")+`}`),
		bad("link without a provider", in+"IdpLinks[0]"+inside+"IDPLink.IdpId: "+oneTo200, "idpLinks", `[{"userId":"u","userName":"n"}]`),
		bad("link without a user", in+"IdpLinks[0]"+inside+"IDPLink.UserId: "+oneTo200, "idpLinks", `[{"idpId":"i","userName":"n"}]`),
		bad("metadata without a key", in+"Metadata[0]"+inside+"SetMetadataEntry.Key: "+oneTo200, "metadata", `[{"value":"dg=="}]`),
		bad("metadata's key too long", in+"Metadata[0]"+inside+"SetMetadataEntry.Key: "+oneTo200, "metadata", `[{"key":`+long(201, "k")+`,"value":"dg=="}]`),
		bad("metadata too large", in+"Metadata[0]"+inside+"SetMetadataEntry.Value: value length must be between 1 and 500000 bytes, inclusive", "metadata", `[{"key":"k","value":"`+base64.StdEncoding.EncodeToString(make([]byte, 500_001))+`"}]`),

		// The command, in the ids of this generation.
		{"password too short", with("password", `{"password":"string"}`), invalid, "COMMA-HuJf6", "Password is too short", 0},
		{"password without lower case", with("password", `{"password":"STRING12!"}`), invalid, "COMMA-co3Xw", "Password must contain lower case", 0},
		{"password without upper case", with("password", `{"password":"string12!"}`), invalid, "COMMA-VoaRj", "Password must contain upper case", 0},
		{"password without number", with("password", `{"password":"String!!!"}`), invalid, "COMMA-ZBv4H", "Password must contain number", 0},
		{"password without symbol", with("password", `{"password":"String123"}`), invalid, "COMMA-ZDLwA", "Password must contain symbol", 0},
		{"hash nobody can verify", with("hashedPassword", `{"hash":"garbage"}`), invalid, "USER-JDk4t", "", 0},
		{"given name of a blank", with("profile", person("givenName", `" "`)), invalid, "PROFILE-RF5z2", "First name in profile is empty", 0},
		{"phone that is none", with("phone", `{"phone":"+abc"}`), invalid, "PHONE-so0wa", "Phone is invalid", 0},
		{"a provider that is not on the list", with("idpLinks", `[{"idpId":"other","userId":"u","userName":"n"}]`), 9, "COMMAND-39nf2", "Identity Provider Configuration doesn't exist", 0},
		{"TOTP that is not base32", with("totpSecret", `"1"`), invalid, "MUSTER-totp", "TOTP secret is not base32", 0},
		{"an organisation that there is not", with("organization", `{"orgId":"nowhere"}`), 7, "AUTH-Bs7Ds", "Organisation doesn't exist", 0},

		// What goes in, and how many facts it is: never an initialization code.
		good("a code to be sent, since nothing is said", 2, nil),
		good("a code to be sent", 2, with("email", address(`,"sendCode":{}`))),
		good("a code to be returned", 2, with("email", address(`,"returnCode":{}`))),
		good("verified", 2, with("email", address(`,"isVerified":true`))),
		good("not verified, said aloud: no code", 1, with("email", address(`,"isVerified":false`))),
		good("hash", 3, with("hashedPassword", goodHash)),
		good("password", 3, with("password", `{"password":"Secr3t!pass","changeRequired":true}`)),
		good("TOTP", 3, with("totpSecret", `"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"`)),
		good("metadata, three of it", 3, with("metadata", `[{"key":"a","value":"dg=="},{"key":"b","value":"dg=="},{"key":"c","value":"dg=="}]`)),
		good("a link", 3, with("idpLinks", `[{"idpId":"listed","userId":"u-`+unique()+`","userName":"n"}]`)),
		good("phone, a code to be sent", 3, with("phone", `{"phone":"+41791234567"}`)),
		good("phone, a code to be returned", 3, with("phone", `{"phone":"+41791234567","returnCode":{}}`)),
		good("phone, verified", 3, with("phone", `{"phone":"+41791234567","isVerified":true}`)),
		good("phone empty is none", 2, with("phone", `{}`)),
		good("a language that is none", 2, with("profile", person("preferredLanguage", `"xx"`))),
		good("another organisation", 2, with("organization", `{"orgId":"org-2"}`)),
	}
}

// TestSecondGenerationOverEveryProtocol runs CONTRACT.md §13's cases over REST,
// gRPC, gRPC-Web and Connect.
func TestSecondGenerationOverEveryProtocol(t *testing.T) {
	t.Parallel()
	s := start(t, func(d *handlers.Deps) { d.Importer.Policy.IDPConfigs = []string{"listed"} })
	const path, procedure = "/v2/users/human", "/zitadel.user.v2.UserService/AddHumanUser"
	request := func(c secondCase) string {
		fields := map[string]string{"profile": `{"givenName":"Minnie","familyName":"Mouse"}`, "email": fmt.Sprintf(`{"email":"w%s@example.org"}`, unique())}
		maps.Copy(fields, c.fields)
		var parts []string
		for k, v := range fields {
			if v != "" {
				parts = append(parts, fmt.Sprintf("%q:%s", k, v))
			}
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	check := func(t *testing.T, c secondCase, a answer, sequence uint64) {
		t.Helper()
		bare := strings.TrimSuffix(a.Message, " ("+c.id+")")
		if a.Code != c.code || a.id() != c.id || c.message != "" && bare != c.message || c.code == 0 && sequence != uint64(c.events) {
			t.Errorf("code %d, id %q, sequence %d, want %d, %q, %d; message\n     %q\nwant %q", a.Code, a.id(), sequence, c.code, c.id, c.events, bare, c.message)
		}
	}
	for _, c := range secondCases() {
		t.Run("REST/"+c.name, func(t *testing.T) {
			a := s.rest(t, "POST", path, request(c))
			res := &userv2.AddHumanUserResponse{}
			if a.HTTP != statuses[c.code] {
				t.Errorf("HTTP %d: %s", a.HTTP, a.Body)
			}
			if c.code == 0 {
				fromJSON(t, string(a.Body), res)
				if d := res.GetDetails(); res.GetUserId() == "" || d.GetCreationDate() != nil || d.GetResourceOwner() == "" || time.Since(d.GetChangeDate().AsTime()) > time.Minute {
					t.Errorf("%s", a.Body)
				}
			}
			check(t, c, a, res.GetDetails().GetSequence())
		})
	}
	for i, p := range protocols {
		for _, c := range secondCases() {
			t.Run(p.name+"/"+c.name, func(t *testing.T) {
				req := &userv2.AddHumanUserRequest{}
				fromJSON(t, request(c), req)
				res, a := rpc[userv2.AddHumanUserRequest, userv2.AddHumanUserResponse](t, s, i, procedure, req)
				check(t, c, a, res.GetDetails().GetSequence())
			})
		}
	}
	// One of two passwords, and not both (REST alone can say so).
	want(t, s.rest(t, "POST", path, request(secondCase{fields: map[string]string{"password": `{"password":"Secr3t!pass"}`, "hashedPassword": `{"hash":"x"}`}})), 400, 3, "")
}

// TestWarningsOfLines is CONTRACT.md A.2's "a warning in the row report": what
// an import says nothing of when it comes alone, a stream's answer tells.
func TestWarningsOfLines(t *testing.T) {
	t.Parallel()
	s := start(t, withJobs)
	cases := []struct {
		changes map[string]string
		field   string
	}{
		{profile("preferredLanguage", `"xx"`), "profile.preferredLanguage"},
		{with("otpCode", `"JBSWY3DP"`), "otpCode"},
		{with("hashedPassword", `{"value":"5f4dcc3b5aa765d61d8327deb882cf99"}`), "hashedPassword.value"},
		{with("passwordChangeRequired", "true"), "passwordChangeRequired"},
		{with("metadata", `[{"key":"k","value":"dg=="},{"key":"k","value":"dw=="}]`), "metadata[1].key"},
		{nil, ""},
	}
	var lines []string
	for _, c := range cases {
		lines = append(lines, body(c.changes))
	}
	for i, a := range s.bulk(t, s.http, "", strings.NewReader(strings.Join(lines, "\n")))[:len(cases)] {
		field := ""
		if len(a.Warnings) == 1 && a.Warnings[0].Text != "" {
			field = a.Warnings[0].Field
		}
		if a.Outcome != "created" || field != cases[i].field || len(a.Warnings) > 1 {
			t.Errorf("line %d: %s, warnings %v, want one of %q", i+1, a.Outcome, a.Warnings, cases[i].field)
		}
	}
	if a := s.rest(t, "POST", importPath, body(profile("preferredLanguage", `"xx"`))); a.HTTP != 200 || strings.Contains(string(a.Body), "warning") {
		t.Errorf("alone: %d %s", a.HTTP, a.Body)
	}
}

// TestTheContractsTestsExist holds docs/contract.md to the repository: each
// test that it names is there, and each row under a section names one.
func TestTheContractsTestsExist(t *testing.T) {
	t.Parallel()
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+|Fuzz\w+)\(`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(b, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("../docs/contract.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	section, rows := "", map[string]int{}
	for line := range strings.Lines(string(b)) {
		for _, m := range named.FindAllStringSubmatch(line, -1) {
			if !there[m[1]] {
				t.Errorf("there is no %s:\n%s", m[1], line)
			}
		}
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			section, _, _ = strings.Cut(strings.TrimSpace(heading), ":")
		}
		header := strings.HasPrefix(line, "| row |") || strings.HasPrefix(line, "| cases |") || strings.HasPrefix(line, "|---")
		if section == "" || section == "Departures" || !strings.HasPrefix(line, "|") || header {
			continue
		}
		rows[section]++
		if !named.MatchString(line) {
			t.Errorf("no test holds this:\n%s", line)
		}
	}
	for _, section := range []string{"A", "B §1", "B §2", "B §6", "B §7", "B §8", "B §13", "B §14"} {
		if rows[section] < 4 {
			t.Errorf("section %s has %d rows", section, rows[section])
		}
	}
}
