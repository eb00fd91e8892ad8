package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/handlers/signin"
	"github.com/muster-id/muster/importer"
	"github.com/muster-id/muster/projections"
)

type serveCmd struct {
	Listen         string        `env:"MUSTER_LISTEN" default:":8080" help:"Address to listen on."`
	TLSCert        string        `env:"MUSTER_TLS_CERT" name:"tls-cert" placeholder:"FILE" help:"Certificate and its chain, PEM; with it the service speaks TLS only."`
	TLSKey         string        `env:"MUSTER_TLS_KEY" name:"tls-key" placeholder:"FILE" help:"The certificate's private key, PEM."`
	OIDCIssuer     string        `env:"MUSTER_OIDC_ISSUER" name:"oidc-issuer" placeholder:"URL" help:"OpenID Connect issuer whose JWTs are good beside our own tokens."`
	OIDCAudience   string        `env:"MUSTER_OIDC_AUDIENCE" name:"oidc-audience" placeholder:"ID" help:"What has to be among a JWT's aud."`
	OIDCRoleClaim  string        `env:"MUSTER_OIDC_ROLE_CLAIM" name:"oidc-role-claim" default:"muster_roles" help:"Claim that holds roles: a text, a list, or an object's keys; dots lead into objects."`
	OIDCOrgClaim   string        `env:"MUSTER_OIDC_ORG_CLAIM" name:"oidc-org-claim" default:"muster_org" help:"Claim that holds the organisation's id."`
	PublicURL      string        `env:"MUSTER_PUBLIC_URL" placeholder:"URL" help:"What links begin with; unset: the scheme and host that a call arrived on."`
	AdminToken     string        `env:"MUSTER_ADMIN_TOKEN" placeholder:"TOKEN" help:"The admin's token; unset: generated, kept in admin.token in the data folder."`
	IDPConfigs     []string      `env:"MUSTER_IDP_CONFIGS" name:"idp-configs" placeholder:"ID" help:"Identity providers that links may name; unset: any."`
	SMTPURL        string        `env:"MUSTER_SMTP_URL" name:"smtp-url" placeholder:"URL" help:"Mail server, smtp:// or smtps://; unset: mails are written to mail/ in the data folder."`
	MailTemplates  string        `env:"MUSTER_MAIL_TEMPLATES" placeholder:"DIR" help:"Folder whose templates replace the built-in ones."`
	NATSURL        string        `env:"MUSTER_NATS_URL" name:"nats-url" placeholder:"URL" help:"NATS JetStream to relay events to; several servers separated by commas."`
	NATSPersonal   bool          `env:"MUSTER_NATS_PERSONAL" name:"nats-personal" help:"Relay personal data too; credentials never are."`
	HooksPrivate   bool          `env:"MUSTER_WEBHOOKS_PRIVATE" name:"webhooks-private" help:"Let webhooks have private and loopback addresses."`
	HooksRetry     time.Duration `env:"MUSTER_WEBHOOKS_RETRY" name:"webhooks-retry" default:"5s" help:"How long a webhook waits after a first failure; the wait doubles up to 8 h."`
	LeaseTTL       time.Duration `env:"MUSTER_LEASE_TTL" name:"lease-ttl" default:"15s" help:"How long an instance that died keeps its mails, webhooks and relaying from the others."`
	YieldAbove     int           `env:"MUSTER_YIELD_ABOVE" default:"5000" help:"Growth of the log, in events a second, above which mails, webhooks and relaying wait for an import; 0: they never do."`
	MailRate       float64       `env:"MUSTER_MAIL_RATE" default:"20" help:"Most mails a second."`
	TrustedProxies []string      `env:"MUSTER_TRUSTED_PROXIES" placeholder:"CIDR" help:"Proxies whose forwarding headers are believed."`
	AllowedOrigins []string      `env:"MUSTER_ALLOWED_ORIGINS" placeholder:"ORIGIN" help:"Origins that browsers may call from; * for any."`
	RateLimit      float64       `env:"MUSTER_RATE_LIMIT" default:"0" help:"Most calls a second of one token; 0: no limit."`
	Timeout        time.Duration `env:"MUSTER_TIMEOUT" default:"30s" help:"Longest time for one call."`
	Grace          time.Duration `env:"MUSTER_GRACE" default:"10s" help:"How long a shutdown waits for calls under way."`
	Lockout        int           `env:"MUSTER_LOCKOUT" default:"10" help:"Failed checks of one kind in a row that lock a user; 0: never."`
	Session        time.Duration `env:"MUSTER_SESSION_LIFETIME" name:"session-lifetime" default:"24h" help:"How long a login is good for, unless its call says otherwise."`
	LoginHashers   int           `env:"MUSTER_LOGIN_HASHERS" default:"0" help:"Passwords checked at a time at logins; 0: one a processor."`
	VerifyPrivate  bool          `env:"MUSTER_VERIFY_PRIVATE" name:"verify-private" help:"Let the verification URLs of imports have private and loopback addresses."`
	Hashers        int           `env:"MUSTER_HASHERS" default:"0" help:"Plain passwords hashed at a time; 0: one a processor."`
}

// gcPercent is how much the heap grows before it is collected, unless GOGC says
// otherwise. Little lives longer than a call, some 20 MB in all, so collecting
// seldom costs some 100 MB and made an import of many a sixth quicker.
const gcPercent = 200

// Run starts everything in the order in which it depends on each other, and
// ends it in the reverse order.
func (c *serveCmd) Run(a *app) (err error) {
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(gcPercent)
	}
	db, err := a.openDatabase(false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.stop()) }()
	store, err := a.openStoreOn(db.url)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), c.Grace)
		defer cancel()
		err = errors.Join(err, store.Close(ctx))
	}()

	orgs := access.NewOrganisations(store, time.Now)
	org, err := a.defaultOrg(store, orgs)
	if err != nil {
		return fmt.Errorf("the default organisation: %w", err)
	}
	token, tokenFile, err := a.adminToken(c.AdminToken)
	if err != nil {
		return err
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("MUSTER_TLS_CERT and MUSTER_TLS_KEY go together")
	}
	listener, err := (&net.ListenConfig{}).Listen(a, "tcp", c.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	address := localAddress(listener.Addr(), c.TLSCert != "")

	// Read models have connections of their own: a rebuild holds some of these
	// and some of the store's at the same time.
	pool, err := a.openPool(db.url)
	if err != nil {
		return err
	}
	defer pool.Close()
	engine := projections.New(store, pool, projections.Models(), projections.Config{Instance: instance(), Logger: a.log})
	tokens := access.NewTokens(store.Pool(), token, org, time.Now)
	if c.OIDCIssuer != "" {
		if c.OIDCAudience == "" {
			return errors.New("MUSTER_OIDC_ISSUER needs MUSTER_OIDC_AUDIENCE: whoever else's tokens would be good as well")
		}
		tokens.Trust(access.NewIssuer(access.IssuerConfig{
			URL: c.OIDCIssuer, Audience: c.OIDCAudience, RoleClaim: c.OIDCRoleClaim, OrgClaim: c.OIDCOrgClaim, DefaultOrg: org,
		}))
	}
	outward, err := c.consumers(a, store, address)
	if err != nil {
		return err
	}
	defer outward.close()
	rebuilds := handlers.NewRebuilds(engine, a.log)
	defer rebuilds.Close()
	stopping := make(chan struct{})
	serving, err := c.handler(a, store, engine, tokens, orgs, org, rebuilds, outward, stopping)
	if err != nil {
		return err
	}
	server := handlers.NewHTTPServer(c.Listen, serving.handler, a.log)
	server.RegisterOnShutdown(serving.jobs.Stop)
	server.RegisterOnShutdown(func() { close(stopping) })

	// Workers outlive the HTTP server, so that calls under way can still wait
	// for what they have written to be seen.
	workers, stopWorkers := context.WithCancel(context.WithoutCancel(a))
	defer stopWorkers()
	group, ctx := errgroup.WithContext(a)
	group.Go(func() error { return engine.Run(workers) })
	outward.run(workers, group)
	group.Go(func() error { tokens.Run(workers, 10*time.Second, a.log); return nil })
	group.Go(func() error {
		serve := server.Serve
		if c.TLSCert != "" {
			serve = func(l net.Listener) error { return server.ServeTLS(l, c.TLSCert, c.TLSKey) }
		}
		if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		select {
		case err := <-db.died:
			return fmt.Errorf("PostgreSQL has ended: %w", err)
		case <-ctx.Done():
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		a.log.Info("shutting down")
		grace, cancel := context.WithTimeout(context.Background(), c.Grace)
		defer cancel()
		err := server.Shutdown(grace)
		if err != nil {
			err = errors.Join(fmt.Errorf("calls were cut off: %w", err), server.Close())
		}
		if late := serving.signIn.Close(grace); late != nil {
			a.log.Warn("some passwords were not hashed anew; their next logins try again", "error", late)
		}
		err = errors.Join(err, outward.router.Close())
		stopWorkers()
		return err
	})
	c.greet(a, db, address, tokenFile)
	return group.Wait()
}

// serving is what the HTTP server serves, and what in it has to be ended.
type serving struct {
	handler http.Handler
	jobs    *importer.Jobs
	signIn  *signin.Service
}

// handler wires what the HTTP server serves.
func (c *serveCmd) handler(a *app, store *eventstore.Store, engine *projections.Engine, tokens *access.Tokens, orgs *access.Organisations, org string, rebuilds *handlers.Rebuilds, outward *outward, stopping <-chan struct{}) (serving, error) {
	proxies := make([]netip.Prefix, 0, len(c.TrustedProxies))
	for _, s := range c.TrustedProxies {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return serving{}, fmt.Errorf("a trusted proxy: %w", err)
		}
		proxies = append(proxies, p)
	}
	policy := domain.DefaultPolicy()
	if len(c.IDPConfigs) > 0 {
		policy.IDPConfigs = c.IDPConfigs
	}
	registry := prometheus.NewRegistry()
	calls := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "muster_http_request_seconds",
		Help:    "How long requests took, by route and status.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
	}, []string{"route", "status"})
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), engine, calls)

	one := &importer.Importer{
		Store:     store,
		Passwords: password.NewPool(c.Hashers, rand.Reader),
		Policy:    policy,
		Reserved:  orgs.Reserved,
		Now:       time.Now,
		Rand:      rand.Reader,
	}
	// An import of many hashes its plain passwords apart, so that single calls
	// never wait behind it.
	many := *one
	many.Passwords = password.NewPool(c.Hashers, rand.Reader)
	jobs := importer.NewJobs(&many, a.log)
	// Nor do logins wait behind either.
	signIn, err := signin.New(signin.Config{
		Store: store, Policy: policy, Passwords: password.NewPool(c.LoginHashers, rand.Reader), Secrets: jobs.Secrets,
		OldSystems: signin.NewOldSystems(signin.OldSystemsConfig{
			AllowPrivate: c.VerifyPrivate,
			Verifier: func(ctx context.Context, job string) (signin.Verifier, error) {
				v, err := jobs.Verifier(ctx, job)
				return signin.Verifier(v), err
			},
		}),
		PublicURL: c.PublicURL, Lockout: c.Lockout, Lifetime: c.Session, Log: a.log,
	})
	if err != nil {
		return serving{}, err
	}

	handler := handlers.New(handlers.Deps{
		Store:          store,
		Importer:       one,
		Jobs:           jobs,
		SignIn:         signIn,
		DefaultOrg:     org,
		Bulk:           handlers.ServeBulk(jobs, a.log),
		Projections:    engine,
		Rebuilds:       rebuilds,
		Webhooks:       outward.hooks,
		Stopping:       stopping,
		Tokens:         tokens,
		Organisations:  orgs,
		Log:            a.log,
		Timeout:        c.Timeout,
		PublicURL:      c.PublicURL,
		TrustedProxies: proxies,
		AllowedOrigins: c.AllowedOrigins,
		Rate:           c.RateLimit,
		Burst:          max(1, int(2*c.RateLimit)),
		Ready: func(ctx context.Context) error {
			_, err := store.Head(ctx)
			return errors.Join(err, engine.Ready())
		},
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		Observe: func(route string, status int, took time.Duration) {
			calls.WithLabelValues(route, fmt.Sprint(status)).Observe(took.Seconds())
		},
	})
	return serving{handler, jobs, signIn}, nil
}

// localAddress is how a person on this machine reaches the listener.
func localAddress(addr net.Addr, secure bool) string {
	scheme := "http://"
	if secure {
		scheme = "https://"
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return scheme + addr.String()
	}
	if ip, err := netip.ParseAddr(host); err == nil && (ip.IsUnspecified() || ip.IsLoopback()) {
		host = "localhost"
	}
	return scheme + net.JoinHostPort(host, port)
}

// greet tells a person what to do next.
func (c *serveCmd) greet(a *app, db *database, address, tokenFile string) {
	mail := "mails are written to " + filepath.Join(a.cfg.DataDir, "mail") + " (MUSTER_SMTP_URL is not set)"
	if c.SMTPURL != "" {
		mail = "mails go to MUSTER_SMTP_URL"
	}
	token, said := "$MUSTER_ADMIN_TOKEN", "the admin token is MUSTER_ADMIN_TOKEN"
	if tokenFile != "" {
		token, said = "$(cat "+tokenFile+")", "the admin token is in "+tokenFile
	}
	fmt.Fprintf(a.out, `
muster listens on %s
database: %s
%s
%s

Take a person in:

curl -sS %s/management/v1/users/human/_import \
  -H "Authorization: Bearer %s" \
  -d '{"userName":"minnie","profile":{"firstName":"Minnie","lastName":"Mouse"},"email":{"email":"minnie@example.com","isEmailVerified":true},"hashedPassword":{"value":"$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"}}'

`, address, db.where, said, mail, address, token)
}
