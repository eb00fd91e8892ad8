package consumers

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/eventstore"
)

var (
	// ErrNoWebhook says that there is no endpoint of that id, or none that the
	// organisation may see.
	ErrNoWebhook = errors.New("consumers: no such webhook")
	// ErrWebhookURL says that an endpoint's URL is not one to send to.
	ErrWebhookURL = errors.New("consumers: a webhook's URL must be absolute, http or https, without user and password")
	// ErrTargetRefused says that an endpoint leads to a private, loopback or
	// otherwise special address.
	ErrTargetRefused = errors.New("consumers: the webhook's address is not public")
	// ErrOverlap says that a rotation's overlap is not between nothing and
	// MaxOverlap.
	ErrOverlap = errors.New("consumers: two keys can be valid for at most 30 days")
	// ErrTooManyWebhooks says that an organisation has MaxWebhooks already.
	ErrTooManyWebhooks = errors.New("consumers: the organisation has as many webhooks as it may")
)

const (
	// MaxOverlap is the longest time for which a rotated key goes on signing.
	MaxOverlap = 30 * 24 * time.Hour
	// MaxWebhooks is how many endpoints one organisation may have: each is a
	// consumer of its own, with its own reads of the log.
	MaxWebhooks = 50
	// MaxWebhookURL is the length of a URL, in bytes.
	MaxWebhookURL = 2000
)

// Webhook is an endpoint.
type Webhook struct {
	ID string
	// Org is the organisation whose events it gets; "" for all.
	Org string
	URL string
	// Types are the event types that it gets; empty for all.
	Types []string
	// OpenSealed sends personal data too; credentials are never sent.
	OpenSealed bool
	// Enabled is false after the endpoint answered 410, or by Enable.
	Enabled   bool
	CreatedAt time.Time
	// PreviousUntil is when the key before the present one stops signing;
	// zero when it has, or there was none.
	PreviousUntil time.Time

	version int64
}

// Consumer is the name of the endpoint's consumer: for lag, parked streams,
// and Reset, which replays from any position.
func (w Webhook) Consumer() string { return "webhook-" + strings.ToLower(w.ID) }

// WebhooksConfig says how endpoints are called. The zero value of a field takes
// the default.
type WebhooksConfig struct {
	// AllowPrivate lets endpoints have private and loopback addresses.
	AllowPrivate bool
	// Timeout bounds one call. Default 15 s.
	Timeout time.Duration
	// FirstRetry is the wait after a first failure; it doubles up to 8 h. Default
	// 5 s.
	FirstRetry time.Duration
	// Subscriber is what each endpoint's subscription starts from. Default
	// tries: 20, over about three days.
	Subscriber Config
	// Poll is how often changes of endpoints are looked for. Default 2 s.
	Poll time.Duration
	// Now dates the signatures.
	Now func() time.Time
	Log *slog.Logger
}

// Webhooks sends events to the endpoints of the table webhooks, as Standard
// Webhooks describes (https://www.standardwebhooks.com): a POST of the event's
// Document with the headers webhook-id (the effect id, the same at each try),
// webhook-timestamp (seconds) and webhook-signature ("v1," and the base64 of
// HMAC-SHA-256 over id.timestamp.body; two, separated by a space, during a
// rotation). An answer of 2xx is an ack. Redirects are not followed.
//
// Events of one user arrive in order. 429, 502, 503, 504 and failures to
// connect pause the whole endpoint with backoff; other answers are taken to be
// about the event, which is tried again over days, and then parks its user. An
// endpoint that takes a call and does not answer in time may have come to grief
// over the event as well: only when that happens with a second user, and it has
// answered nobody in between, does it pause the endpoint. 410 disables it.
type Webhooks struct {
	store  *eventstore.Store
	cfg    WebhooksConfig
	client *http.Client
}

// NewWebhooks makes the sender and the administration of endpoints.
func NewWebhooks(store *eventstore.Store, cfg WebhooksConfig) *Webhooks {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 15 * time.Second
	}
	if cfg.FirstRetry <= 0 {
		cfg.FirstRetry = 5 * time.Second
	}
	if cfg.Poll <= 0 {
		cfg.Poll = 2 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	sub := &cfg.Subscriber
	if sub.Attempts == 0 {
		sub.Attempts = 20
	}
	if sub.InFlight == 0 {
		sub.InFlight = 8
	}
	if sub.Window == 0 {
		sub.Window = 512
	}
	if sub.Ranges == 0 {
		sub.Ranges = 4
	}
	if sub.Backoff == nil {
		var c Config
		_ = c.setDefaults() // for Rand
		sub.Backoff = Exponential(cfg.FirstRetry, 8*time.Hour, c.Rand)
	}
	if sub.Log == nil {
		sub.Log = cfg.Log
	}
	w := &Webhooks{store: store, cfg: cfg}
	dialer := &net.Dialer{Timeout: cfg.Timeout, Control: w.control}
	w.client = &http.Client{
		Timeout:       cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                 nil, // a proxy would dial for us, past the guard
			DialContext:           dialer.DialContext,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   4,
			IdleConnTimeout:       time.Minute,
			TLSHandshakeTimeout:   cfg.Timeout,
			ResponseHeaderTimeout: cfg.Timeout,
		},
	}
	return w
}

// control runs after the name has been resolved and before the connection is
// made: the address that it sees is the one that is dialled, so a name that
// resolves differently a moment later gains nothing.
func (w *Webhooks) control(_, address string, _ syscall.RawConn) error {
	if w.cfg.AllowPrivate {
		return nil
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !public(ap.Addr()) {
		return ErrTargetRefused
	}
	return nil
}

// special are the ranges of the IANA special-purpose registries that netip's
// own predicates don't cover, and those that lead to IPv4 addresses in disguise.
var special = func() (out []netip.Prefix) {
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
		"240.0.0.0/4", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}()

func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// secretPrefix begins each secret as it is shown.
const secretPrefix = "whsec_"

func (w *Webhooks) newSecret(id string) (shown, kek string, sealed []byte) {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	kek, sealed = w.store.Keys().Wrap(eventstore.WebhookPrefix+id, secret)
	return secretPrefix + base64.StdEncoding.EncodeToString(secret), kek, sealed
}

// Create adds an endpoint and returns it with its signing secret, which is
// shown this once. It gets the events from start on.
func (w *Webhooks) Create(ctx context.Context, hook Webhook, start Start) (Webhook, string, error) {
	u, err := url.Parse(hook.URL)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" || len(hook.URL) > MaxWebhookURL {
		return Webhook{}, "", ErrWebhookURL
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !w.cfg.AllowPrivate && !public(ip) {
		return Webhook{}, "", ErrTargetRefused
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Webhook{}, "", err
	}
	hook.ID, hook.Enabled = id.String(), true
	if hook.Types == nil {
		hook.Types = []string{}
	}
	secret, kek, sealed := w.newSecret(hook.ID)
	cfg := w.cfg.Subscriber
	cfg.Start = start
	if err := cfg.setDefaults(); err != nil {
		return Webhook{}, "", err
	}
	err = w.store.Pool().QueryRow(ctx, `
		INSERT INTO webhooks (id, org, url, types, open_sealed, enabled, secret_kek, secret)
		SELECT $1, $2, $3, $4, $5, false, $6, $7 WHERE (SELECT count(*) FROM webhooks WHERE org = $2) < $8
		RETURNING created_at`, hook.ID, hook.Org, hook.URL, hook.Types, hook.OpenSealed, kek, sealed, MaxWebhooks).Scan(&hook.CreatedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return Webhook{}, "", ErrTooManyWebhooks
	}
	if err != nil {
		return Webhook{}, "", fmt.Errorf("consumers: creating a webhook: %w", err)
	}
	// Enabled once its consumer is there, which has its starting point: an
	// instance that found the endpoint earlier would begin at another one.
	if err = create(ctx, w.store, hook.Consumer(), cfg); err == nil {
		err = w.Enable(ctx, "", hook.ID, true)
	}
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return Webhook{}, "", errors.Join(err, w.Delete(undo, "", hook.ID))
	}
	return hook, secret, nil
}

// List returns the endpoints of an organisation, or all when org is empty.
func (w *Webhooks) List(ctx context.Context, org string) ([]Webhook, error) {
	return w.find(ctx, org, "")
}

// Get returns one endpoint, of an organisation unless org is empty.
func (w *Webhooks) Get(ctx context.Context, org, id string) (Webhook, error) {
	list, err := w.find(ctx, org, id)
	if err == nil && (id == "" || len(list) == 0) {
		err = ErrNoWebhook
	}
	if err != nil {
		return Webhook{}, err
	}
	return list[0], nil
}

func (w *Webhooks) find(ctx context.Context, org, id string) ([]Webhook, error) {
	rows, err := w.store.Pool().Query(ctx, `
		SELECT id, org, url, types, open_sealed, enabled, created_at, CASE WHEN previous_until > now() THEN previous_until END, version
		FROM webhooks WHERE ($1::text IS NULL OR org = $1) AND ($2::text IS NULL OR id = $2) ORDER BY created_at, id`, optional(org), optional(id))
	if err != nil {
		return nil, fmt.Errorf("consumers: listing webhooks: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Webhook, err error) {
		var until *time.Time
		err = row.Scan(&h.ID, &h.Org, &h.URL, &h.Types, &h.OpenSealed, &h.Enabled, &h.CreatedAt, &until, &h.version)
		if until != nil {
			h.PreviousUntil = *until
		}
		return h, err
	})
}

// change runs one statement on one endpoint.
func (w *Webhooks) change(ctx context.Context, org, id, statement string, args ...any) error {
	tag, err := w.store.Pool().Exec(ctx, statement, append([]any{id, optional(org)}, args...)...)
	if err != nil {
		return fmt.Errorf("consumers: changing a webhook: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoWebhook
	}
	return nil
}

// Rotate gives an endpoint a new secret, which is shown this once; the old one
// signs beside it for the overlap, at most MaxOverlap. One that still signed
// from an earlier rotation stops.
func (w *Webhooks) Rotate(ctx context.Context, org, id string, overlap time.Duration) (string, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return "", ErrOverlap
	}
	secret, kek, sealed := w.newSecret(id)
	return secret, w.change(ctx, org, id, `
		UPDATE webhooks SET previous_kek = secret_kek, previous = secret, previous_until = now() + make_interval(secs => $3::float8),
		       secret_kek = $4, secret = $5, version = version + 1
		WHERE id = $1 AND ($2::text IS NULL OR org = $2)`, overlap.Seconds(), kek, sealed)
}

// Enable turns an endpoint on or off. What happens while it is off is sent
// once it is on.
func (w *Webhooks) Enable(ctx context.Context, org, id string, on bool) error {
	return w.change(ctx, org, id, `
		UPDATE webhooks SET enabled = $3, version = version + 1 WHERE id = $1 AND ($2::text IS NULL OR org = $2)`, on)
}

// Delete forgets an endpoint and its consumer.
func (w *Webhooks) Delete(ctx context.Context, org, id string) error {
	if err := w.change(ctx, org, id, `DELETE FROM webhooks WHERE id = $1 AND ($2::text IS NULL OR org = $2)`); err != nil {
		return err
	}
	if err := NewAdmin(w.store).Delete(ctx, Webhook{ID: id}.Consumer()); !errors.Is(err, ErrNoConsumer) {
		return err
	}
	return nil
}

// Ping sends a signed test message of type "_ping" and returns the status of
// the answer.
func (w *Webhooks) Ping(ctx context.Context, org, id string) (status int, err error) {
	hook, err := w.Get(ctx, org, id)
	if err != nil {
		return 0, err
	}
	ping, err := uuid.NewV7()
	if err != nil {
		return 0, err
	}
	body, err := json.Marshal(map[string]any{"type": "_ping", "id": ping.String(), "at": w.cfg.Now().UTC()})
	if err != nil {
		return 0, err
	}
	return w.post(ctx, hook, ping.String(), body)
}

// secrets returns the keys that an endpoint's messages are signed with now.
func (w *Webhooks) secrets(ctx context.Context, id string) ([][]byte, error) {
	var kek, previousKEK *string
	var sealed, previous []byte
	err := w.store.Pool().QueryRow(ctx, `
		SELECT secret_kek, secret, CASE WHEN previous_until > now() THEN previous_kek END, previous FROM webhooks WHERE id = $1`, id).
		Scan(&kek, &sealed, &previousKEK, &previous)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNoWebhook
	}
	if err != nil {
		return nil, err
	}
	secret, err := w.store.Keys().Unwrap(eventstore.WebhookPrefix+id, *kek, sealed)
	if err != nil {
		return nil, err
	}
	out := [][]byte{secret}
	if previousKEK != nil {
		if secret, err = w.store.Keys().Unwrap(eventstore.WebhookPrefix+id, *previousKEK, previous); err != nil {
			return nil, err
		}
		out = append(out, secret)
	}
	return out, nil
}

// Sign returns the webhook-signature header of a message.
func Sign(secrets [][]byte, id string, at time.Time, body []byte) string {
	var out []string
	for _, s := range secrets {
		h := hmac.New(sha256.New, s)
		fmt.Fprintf(h, "%s.%d.", id, at.Unix())
		h.Write(body)
		out = append(out, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return strings.Join(out, " ")
}

func (w *Webhooks) post(ctx context.Context, hook Webhook, id string, body []byte) (int, error) {
	secrets, err := w.secrets(ctx, hook.ID)
	if err != nil {
		return 0, &Failure{Class: "secret", Outage: true, Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, hook.URL, bytes.NewReader(body))
	if err != nil {
		return 0, &Failure{Class: "url", Outage: true, Err: ErrWebhookURL}
	}
	now := w.cfg.Now()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Muster-Webhooks/1")
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("webhook-signature", Sign(secrets, id, now, body))
	var taken atomic.Bool // the whole call is with the other side
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(info httptrace.WroteRequestInfo) { taken.Store(info.Err == nil) },
	}))
	res, err := w.client.Do(req)
	switch {
	case errors.Is(err, ErrTargetRefused):
		return 0, &Failure{Class: "target_refused", Outage: true, Err: ErrTargetRefused}
	case err != nil && taken.Load():
		return 0, &Failure{Class: classNoAnswer, Err: errors.New("the endpoint took the call and did not answer")}
	case err != nil:
		return 0, &Failure{Class: "unreachable", Outage: true, Err: errors.New("the endpoint cannot be reached")} // err shows the URL
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10) // so that the connection can be used again
	return res.StatusCode, nil
}

// classNoAnswer is the class of a call that an endpoint took and did not
// answer, or not in time.
const classNoAnswer = "no_answer"

// silence counts the users over whom an endpoint fell silent since it last
// answered anybody.
type silence struct {
	mu    sync.Mutex
	users map[string]bool
}

// answered forgets what was counted.
func (s *silence) answered() {
	s.mu.Lock()
	clear(s.users)
	s.mu.Unlock()
}

// fell counts one more, and reports whether it can't be about that user alone.
func (s *silence) fell(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[user] = true
	if len(s.users) < 2 {
		return false
	}
	s.users = map[string]bool{user: true} // no more than there need be
	return true
}

// handle sends one event.
func (w *Webhooks) handle(hook Webhook) message.NoPublishHandlerFunc {
	silent := &silence{users: map[string]bool{}}
	return func(msg *message.Message) error {
		status, err := w.post(msg.Context(), hook, msg.UUID, msg.Payload)
		var f *Failure
		switch {
		case err == nil:
			silent.answered()
		case errors.As(err, &f) && f.Class == classNoAnswer && msg.Context().Err() == nil:
			f.Outage = silent.fell(msg.Metadata.Get(MetaStream))
		}
		switch {
		case err != nil:
			return err
		case status >= 200 && status < 300:
			return nil
		case status == http.StatusGone:
			if err := w.Enable(msg.Context(), "", hook.ID, false); err != nil && !errors.Is(err, ErrNoWebhook) {
				return &Failure{Class: "database", Outage: true, Err: err}
			}
			w.cfg.Log.Warn("a webhook's endpoint says that it is gone; it is disabled", "webhook", hook.ID)
			return &Failure{Class: "http_410", Outage: true}
		case status == http.StatusTooManyRequests, status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
			return &Failure{Class: "http_" + strconv.Itoa(status), Outage: true}
		}
		return &Failure{Class: "http_" + strconv.Itoa(status)}
	}
}

// Run sends to all enabled endpoints until ctx ends, and takes notice of those
// that are created, changed and deleted.
func (w *Webhooks) Run(ctx context.Context) error {
	type running struct {
		version int64
		stop    context.CancelFunc
		done    chan struct{}
	}
	active := map[string]running{}
	defer func() {
		var wg sync.WaitGroup
		for _, r := range active {
			wg.Go(func() { r.stop(); <-r.done })
		}
		wg.Wait()
		w.client.CloseIdleConnections()
	}()
	for ctx.Err() == nil {
		list, err := w.List(ctx, "")
		if err != nil && ctx.Err() == nil {
			w.cfg.Log.Warn("cannot look up the webhooks", "err", err)
		}
		if err == nil {
			want := map[string]Webhook{}
			for _, h := range list {
				if h.Enabled {
					want[h.ID] = h
				}
			}
			for id, r := range active {
				ended := false
				select {
				case <-r.done: // it failed; it is started again below
					ended = true
				default:
				}
				if h, ok := want[id]; !ok || h.version != r.version || ended {
					r.stop()
					<-r.done
					delete(active, id)
				}
			}
			for id, h := range want {
				if _, ok := active[id]; ok {
					continue
				}
				// Not ctx: what is being sent may come to its end.
				run, stop := context.WithCancel(context.WithoutCancel(ctx))
				r := running{version: h.version, stop: stop, done: make(chan struct{})}
				active[id] = r
				go func() {
					defer close(r.done)
					if err := w.serve(run, h); err != nil {
						w.cfg.Log.Warn("a webhook cannot be served", "webhook", h.ID, "err", err)
					}
				}()
			}
		}
		pause(ctx, w.cfg.Poll)
	}
	return nil
}

// serve is one endpoint's consumer.
func (w *Webhooks) serve(ctx context.Context, hook Webhook) error {
	cfg := w.cfg.Subscriber
	cfg.Types, cfg.Org, cfg.OpenSealed = hook.Types, hook.Org, hook.OpenSealed
	sub, err := NewSubscriber(w.store, cfg)
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	router.AddMiddleware(Classify)
	router.AddConsumerHandler(hook.Consumer(), hook.Consumer(), sub, w.handle(hook))
	if err := router.Run(ctx); err != nil {
		return err
	}
	return sub.Err(hook.Consumer())
}
