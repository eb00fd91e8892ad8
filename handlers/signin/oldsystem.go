package signin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
)

// Verifier is where an old system checks the passwords of an import job's
// users.
type Verifier struct {
	// URL is what a password is posted to; empty when nobody can be asked.
	URL string
	// Authorization is the header of that name; empty for none.
	Authorization string
}

// OldSystemsConfig says how old systems are asked. The zero value of a field
// takes the default.
type OldSystemsConfig struct {
	// Verifier finds the verifier of a job.
	Verifier func(ctx context.Context, job string) (Verifier, error)
	// AllowPrivate lets old systems have private and loopback addresses.
	AllowPrivate bool
	// Timeout bounds one question. Default 10 s.
	Timeout time.Duration
	// Most bounds the questions at a time. Default 16.
	Most int
	// Failures is how many questions in a row that got no answer stop the
	// asking for Pause. Defaults 5 and 30 s.
	Failures int
	Pause    time.Duration
	// Now is the clock. Default: the system's.
	Now func() time.Time
}

// OldSystems asks the systems that users come from whether a password is right.
//
// A question is a POST of {"loginName", "userId", "externalId", "password"} in
// JSON; externalId is the user's id there, when the import told it. An answer of
// 2xx says that it is right, 401, 403, 404 or 422 that it is not; nothing else
// is an answer. Bodies and redirects of answers are ignored.
//
// An address is judged when it is dialled, after its name has been resolved, so
// that no name leads into a network that the caller who named it could not reach.
type OldSystems struct {
	cfg    OldSystemsConfig
	client *http.Client
	slots  chan struct{}

	mu       sync.Mutex // guards breakers
	breakers map[string]*breaker
}

// ErrOldSystem says that the system which knows a password did not answer.
// Nothing was counted.
var ErrOldSystem = domain.NewError(domain.KindUnavailable, "MUSTER-oldsystem", "The system that knows the password does not answer, try again later")

// Why it did not, for the log: neither tells the address.
var (
	errRefusedAddress = errors.New("signin: the old system's address is not public")
	errNoAnswer       = errors.New("signin: the old system gave no answer")
	errNoVerifier     = errors.New("signin: the job names no old system")
	errPaused         = errors.New("signin: the old system is not asked for a while")
)

// NewOldSystems returns a client of old systems.
func NewOldSystems(cfg OldSystemsConfig) *OldSystems {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Most <= 0 {
		cfg.Most = 16
	}
	if cfg.Failures <= 0 {
		cfg.Failures = 5
	}
	if cfg.Pause <= 0 {
		cfg.Pause = 30 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	o := &OldSystems{cfg: cfg, slots: make(chan struct{}, cfg.Most), breakers: map[string]*breaker{}}
	dialer := &net.Dialer{Timeout: cfg.Timeout, Control: o.control}
	o.client = &http.Client{
		Timeout:       cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:               nil, // a proxy would dial for us, past the guard
			DialContext:         dialer.DialContext,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: cfg.Most,
			IdleConnTimeout:     time.Minute,
			TLSHandshakeTimeout: cfg.Timeout,
		},
	}
	return o
}

func (o *OldSystems) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !o.cfg.AllowPrivate && !consumers.Public(ap.Addr()) {
		return errRefusedAddress
	}
	return nil
}

// Check asks whether plain is the user's password. Every error is ErrOldSystem.
func (o *OldSystems) Check(ctx context.Context, u *domain.User, plain string) (bool, error) {
	v, err := o.cfg.Verifier(ctx, u.OldSystem)
	if err == nil && v.URL == "" {
		err = errNoVerifier
	}
	if err != nil {
		return false, ErrOldSystem.Because(err)
	}
	b := o.breaker(u.OldSystem)
	if !b.enter(o.cfg.Now()) {
		return false, ErrOldSystem.Because(errPaused)
	}
	good, err := o.ask(ctx, v, u, plain)
	switch {
	case err == nil:
		b.answered()
	case ctx.Err() != nil:
		b.leave() // who hangs up says nothing about the old system
	default:
		b.failed(o.cfg.Now(), o.cfg.Failures, o.cfg.Pause)
	}
	if err != nil {
		return false, ErrOldSystem.Because(err)
	}
	return good, nil
}

func (o *OldSystems) ask(ctx context.Context, v Verifier, u *domain.User, plain string) (bool, error) {
	select {
	case o.slots <- struct{}{}:
		defer func() { <-o.slots }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	body, err := json.Marshal(map[string]string{
		"loginName": u.UserName, "userId": u.ID, "externalId": u.ExternalID, "password": plain,
	})
	if err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.URL, bytes.NewReader(body))
	if err != nil {
		return false, errNoAnswer
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Muster-Verify/1")
	if v.Authorization != "" {
		req.Header.Set("Authorization", v.Authorization)
	}
	res, err := o.client.Do(req)
	switch {
	case errors.Is(err, errRefusedAddress):
		return false, errRefusedAddress
	case err != nil:
		return false, errNoAnswer // err shows the URL
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10) // so that the connection can be used again
	switch {
	case res.StatusCode >= 200 && res.StatusCode < 300:
		return true, nil
	case res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden,
		res.StatusCode == http.StatusNotFound, res.StatusCode == http.StatusUnprocessableEntity:
		return false, nil
	}
	return false, errNoAnswer
}

func (o *OldSystems) breaker(job string) *breaker {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.breakers[job]
	if b == nil {
		b = &breaker{}
		o.breakers[job] = b
	}
	return b
}

// breaker stops asking a system that does not answer: people who wait for it
// would hold everybody else up. After the pause one question finds out whether
// it is back.
type breaker struct {
	mu       sync.Mutex // guards what follows
	failures int
	until    time.Time
	probing  bool
}

func (b *breaker) enter(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.until.IsZero():
		return true
	case now.Before(b.until) || b.probing:
		return false
	}
	b.probing = true
	return true
}

func (b *breaker) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
}

func (b *breaker) answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures, b.until, b.probing = 0, time.Time{}, false
}

func (b *breaker) failed(now time.Time, limit int, pause time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	if b.failures++; b.failures >= limit {
		b.until = now.Add(pause)
	}
}

// takePassword checks a password that only the old system knows, and keeps it
// when it is right. errOtherHash says that somebody was faster.
func (s *Service) takePassword(ctx context.Context, u *domain.User, plain string) (*domain.User, error) {
	good, err := s.cfg.OldSystems.Check(ctx, u, plain)
	if err != nil {
		return nil, err
	}
	hash := ""
	if good {
		if hash, err = s.cfg.Passwords.Hash(ctx, plain); err != nil {
			return nil, err
		}
	}
	asked := u.OldSystem
	u, err = s.change(ctx, u.ID, func(u *domain.User, _ time.Time) (domain.Decision, error) {
		switch {
		case u.HasPassword || u.OldSystem != asked:
			return domain.Decision{}, errOtherHash
		case good:
			return u.TakePassword(hash)
		}
		return u.CheckedPassword(false, s.cfg.Lockout)
	})
	return u, err
}

// delegated says whether a password is to be asked for elsewhere. What could
// not be hashed here is nobody's password, and who is not active gets nowhere.
func (s *Service) delegated(u *domain.User, plain string) bool {
	return s.cfg.OldSystems != nil && u.State == domain.StateActive && !u.HasPassword && u.OldSystem != "" &&
		plain != "" && domain.CheckPlain(plain) == nil
}
