package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/muster-id/muster/domain"
)

// ErrIssuer says that the issuer's configuration cannot be had just now.
var ErrIssuer = domain.NewError(domain.KindUnavailable, "MUSTER-issuer", "Identity provider cannot be reached, try again")

// IssuerConfig says whose JWTs are good, and what their claims mean.
type IssuerConfig struct {
	// URL is the issuer, exactly as the claim iss has it. Its OpenID Connect
	// discovery document says where the keys are.
	URL string
	// Audience has to be among a token's aud.
	Audience string
	// RoleClaim holds the roles: a text, a list of texts, or an object whose
	// keys they are. What is no role of ours is ignored, the strongest of the
	// others counts; without any, a token may nothing. The name is a claim's,
	// or a path with dots into nested objects.
	RoleClaim string
	// OrgClaim holds the organisation's id, named in the same way. An
	// role of all organisations whose token has none acts in DefaultOrg.
	OrgClaim, DefaultOrg string
	// Transport is for tests; nil: the default one.
	Transport http.RoundTripper
	// Now is the clock; nil: the system's.
	Now func() time.Time
}

// Issuer verifies the JWTs of one OpenID Connect issuer. Keys are kept in
// memory, and fetched anew for a token that none of them has signed, but not
// more often than the issuer can be asked to bear: a stranger's forgeries cost
// it one request a second. It is safe for concurrent use.
type Issuer struct {
	cfg     IssuerConfig
	client  *http.Client
	flights singleflight.Group

	mu       sync.Mutex // guards what follows
	verifier *oidc.IDTokenVerifier
	failed   time.Time // when discovery last did
}

const (
	issuerTimeout = 5 * time.Second
	// issuerPause is how long after a failure the issuer is left alone.
	issuerPause = time.Second
)

// NewIssuer returns the tokens of an issuer. It need not be reachable yet:
// discovery happens with the first token.
func NewIssuer(cfg IssuerConfig) *Issuer {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	return &Issuer{cfg: cfg, client: &http.Client{
		Timeout:   issuerTimeout,
		Transport: &sparing{next: cfg.Transport, limit: rate.NewLimiter(1, 10)},
	}}
}

// sparing bounds the requests that strangers can make us send.
type sparing struct {
	next  http.RoundTripper
	limit *rate.Limiter
}

func (s *sparing) RoundTrip(r *http.Request) (*http.Response, error) {
	if !s.limit.Allow() {
		return nil, errors.New("access: the issuer has been asked often enough")
	}
	return s.next.RoundTrip(r)
}

// isJWT tells a signed JWT, whose header is a JSON object, from a token of ours.
func isJWT(secret string) bool {
	return strings.HasPrefix(secret, "eyJ") && strings.Count(secret, ".") == 2
}

// ready returns the verifier, after discovery when there has been none.
func (i *Issuer) ready(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	i.mu.Lock()
	v, failed := i.verifier, i.failed
	i.mu.Unlock()
	switch {
	case v != nil:
		return v, nil
	case i.cfg.Now().Sub(failed) < issuerPause:
		return nil, ErrIssuer
	}
	flight := i.flights.DoChan("", func() (any, error) {
		// Later requests for keys use this context's client and nothing else.
		ctx := oidc.ClientContext(context.WithoutCancel(ctx), i.client)
		provider, err := oidc.NewProvider(ctx, i.cfg.URL)
		i.mu.Lock()
		defer i.mu.Unlock()
		if err != nil {
			i.failed = i.cfg.Now()
			return nil, ErrIssuer.Because(err)
		}
		i.verifier = provider.VerifierContext(ctx, &oidc.Config{ClientID: i.cfg.Audience, Now: i.cfg.Now})
		return i.verifier, nil
	})
	select {
	case r := <-flight:
		v, _ := r.Val.(*oidc.IDTokenVerifier)
		return v, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// authenticate judges a JWT. Errors: ErrToken, with the reason as its cause;
// ErrIssuer.
func (i *Issuer) authenticate(ctx context.Context, raw string) (Token, error) {
	v, err := i.ready(ctx)
	if err != nil {
		return Token{}, err
	}
	verified, err := v.Verify(ctx, raw)
	if err != nil {
		if ctx.Err() != nil {
			return Token{}, ctx.Err()
		}
		return Token{}, ErrToken.Because(err)
	}
	var claims map[string]any
	if err := verified.Claims(&claims); err != nil {
		return Token{}, ErrToken.Because(err)
	}
	if verified.Subject == "" {
		return Token{}, ErrToken.Because(errors.New("access: a JWT without a subject"))
	}
	t := Token{ID: actorOf(verified.Subject), Role: strongest(claim(claims, i.cfg.RoleClaim)), CreatedAt: verified.IssuedAt.UTC(), ExpiresAt: verified.Expiry.UTC()}
	t.Name = t.ID
	t.Org, _ = claim(claims, i.cfg.OrgClaim).(string)
	if t.Org == "" && t.Role.AnyOrganisation() {
		t.Org = i.cfg.DefaultOrg
	}
	return t, nil
}

// opaque is a subject that can be shown: an id, and no address or name.
var opaque = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:|-]{0,63}$`)

// actorOf is the id that a subject acts under in events and logs, which are
// not sealed: what may be personal becomes a digest.
func actorOf(subject string) string {
	if opaque.MatchString(subject) {
		return "oidc:" + subject
	}
	sum := sha256.Sum256([]byte(subject))
	return "oidc:sha256-" + hex.EncodeToString(sum[:16])
}

// claim finds a claim by its name, or by a path of names with dots.
func claim(claims map[string]any, name string) any {
	if v, ok := claims[name]; ok || name == "" {
		return v
	}
	for i, c := range name {
		if c != '.' {
			continue
		}
		if inner, ok := claims[name[:i]].(map[string]any); ok {
			if v := claim(inner, name[i+1:]); v != nil {
				return v
			}
		}
	}
	return nil
}

// strongest finds the strongest of our roles among what a claim holds.
func strongest(v any) Role {
	held := map[string]bool{}
	switch v := v.(type) {
	case string:
		for _, r := range strings.Fields(v) {
			held[r] = true
		}
	case []any:
		for _, r := range v {
			if r, ok := r.(string); ok {
				held[r] = true
			}
		}
	case map[string]any:
		for r := range v {
			held[r] = true
		}
	}
	for _, r := range Roles { // from the strongest
		if held[string(r)] {
			return r
		}
	}
	return ""
}
