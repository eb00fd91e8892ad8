package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/singleflight"
)

// SecretPrefix begins every token's secret, so that scanners of repositories
// and logs recognise one that leaked.
const SecretPrefix = "mst_"

// AdminID is the id that the configured administrator's token acts under.
const AdminID = "$admin"

const adminName = "administrator"

// Freshness is how long an answer of the database about a token is believed.
// It leaves a quarter of the promised second for the look-up itself.
const Freshness = 750 * time.Millisecond

// cacheSize bounds the remembered answers, known and unknown tokens together.
// Beyond it the memory is simply emptied: guesses cannot fill it for long.
const cacheSize = 10_000

// Token is what is known about a token; never its secret.
type Token struct {
	ID, Name, Org, CreatedBy string
	Role                     Role
	CreatedAt                time.Time
	// ExpiresAt, RevokedAt and LastUsedAt are zero when there is no such time.
	// LastUsedAt lags by up to the interval of Run.
	ExpiresAt, RevokedAt, LastUsedAt time.Time
}

func (t Token) goodAt(now time.Time) bool {
	return t.RevokedAt.IsZero() && (t.ExpiresAt.IsZero() || now.Before(t.ExpiresAt))
}

// Tokens makes, finds and ends tokens. It is safe for concurrent use.
type Tokens struct {
	pool  *pgxpool.Pool
	now   func() time.Time
	admin [sha256.Size]byte // hash of the administrator's token
	// adminOrg is the organisation of the administrator's calls by default;
	// "" when there is no administrator's token.
	adminOrg string
	hasAdmin bool
	// issuer's JWTs are good as well; nil for none.
	issuer *Issuer

	flights singleflight.Group

	mu    sync.Mutex // guards what follows
	known map[[sha256.Size]byte]answer
	used  map[string]time.Time // token id → last use, not written yet
}

// answer is what the database said at a time; token is nil for "unknown".
type answer struct {
	token *Token
	at    time.Time
}

// NewTokens returns the tokens of a database. adminSecret is the configured
// administrator's token, "" for none; its calls belong to adminOrg unless they
// say otherwise. now is the clock.
func NewTokens(pool *pgxpool.Pool, adminSecret, adminOrg string, now func() time.Time) *Tokens {
	return &Tokens{
		pool: pool, now: now,
		admin: sha256.Sum256([]byte(adminSecret)), adminOrg: adminOrg, hasAdmin: adminSecret != "",
		known: map[[sha256.Size]byte]answer{}, used: map[string]time.Time{},
	}
}

// Trust makes an issuer's JWTs good as well. It is for the time before the
// first call.
func (t *Tokens) Trust(i *Issuer) { t.issuer = i }

const tokenColumns = `id, name, org, role, created_at, created_by, expires_at, revoked_at, last_used_at` // #nosec G101 -- names of columns

func scanToken(row pgx.CollectableRow) (Token, error) {
	var t Token
	var expires, revoked, used *time.Time
	err := row.Scan(&t.ID, &t.Name, &t.Org, &t.Role, &t.CreatedAt, &t.CreatedBy, &expires, &revoked, &used)
	t.CreatedAt = t.CreatedAt.UTC()
	for _, c := range []struct {
		from *time.Time
		to   *time.Time
	}{{expires, &t.ExpiresAt}, {revoked, &t.RevokedAt}, {used, &t.LastUsedAt}} {
		if c.from != nil {
			*c.to = c.from.UTC()
		}
	}
	return t, err
}

// Create makes a token and returns it with its secret, which nobody can show a
// second time. A zero expires means never. Errors: ErrRole, ErrExpiry.
func (t *Tokens) Create(ctx context.Context, name, org string, role Role, expires time.Time, by string) (Token, string, error) {
	now := t.now().UTC().Truncate(time.Microsecond)
	if !role.Valid() {
		return Token{}, "", ErrRole
	}
	if !expires.IsZero() && !expires.After(now) {
		return Token{}, "", ErrExpiry
	}
	var random [32]byte
	rand.Read(random[:]) // never fails
	secret := SecretPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	hash := sha256.Sum256([]byte(secret))
	k := Token{ID: ulid.MustNew(ulid.Timestamp(now), rand.Reader).String(), Name: name, Org: org, Role: role,
		CreatedAt: now, CreatedBy: by, ExpiresAt: expires.UTC()}
	_, err := t.pool.Exec(ctx, `INSERT INTO tokens (id, hash, name, org, role, created_at, created_by, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		k.ID, hash[:], k.Name, k.Org, k.Role, k.CreatedAt, k.CreatedBy, orNull(expires))
	return k, secret, err
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// List returns every token, the oldest first.
func (t *Tokens) List(ctx context.Context) ([]Token, error) {
	rows, err := t.pool.Query(ctx, `SELECT `+tokenColumns+` FROM tokens ORDER BY created_at, id`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanToken)
}

// Names finds what tokens are called.
func (t *Tokens) Names(ctx context.Context, ids []string) (map[string]string, error) {
	names := map[string]string{AdminID: adminName}
	rows, err := t.pool.Query(ctx, `SELECT id, name FROM tokens WHERE id = ANY($1)`, ids)
	if err != nil {
		return nil, err
	}
	var id, name string
	_, err = pgx.ForEachRow(rows, []any{&id, &name}, func() error { names[id] = name; return nil })
	return names, err
}

// Revoke ends a token; a second time changes nothing. Error: ErrTokenNotFound.
func (t *Tokens) Revoke(ctx context.Context, id string) (Token, error) {
	rows, err := t.pool.Query(ctx, `UPDATE tokens SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1 RETURNING `+tokenColumns, id, t.now())
	if err != nil {
		return Token{}, err
	}
	k, err := pgx.CollectExactlyOneRow(rows, scanToken)
	if errors.Is(err, pgx.ErrNoRows) {
		return Token{}, ErrTokenNotFound
	}
	if err != nil {
		return Token{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.known)
	return k, nil
}

// Authenticate finds the token that an Authorization header carries: the
// administrator's, one of ours, or a JWT of a trusted issuer. Errors:
// ErrNoHeader, ErrHeader, ErrToken, ErrIssuer; others are the database's.
func (t *Tokens) Authenticate(ctx context.Context, header string) (Token, error) {
	if header == "" {
		return Token{}, ErrNoHeader
	}
	secret, ok := strings.CutPrefix(header, "Bearer ")
	if !ok {
		return Token{}, ErrHeader
	}
	// Hashing first makes every comparison one of equal lengths between values
	// that a caller cannot steer.
	hash := sha256.Sum256([]byte(secret))
	if t.hasAdmin && subtle.ConstantTimeCompare(hash[:], t.admin[:]) == 1 {
		return Token{ID: AdminID, Name: adminName, Org: t.adminOrg, Role: IAMOwner}, nil
	}
	if t.issuer != nil && isJWT(secret) {
		return t.issuer.authenticate(ctx, secret)
	}
	a, err := t.lookUp(ctx, hash)
	if err != nil {
		return Token{}, err
	}
	now := t.now()
	if a.token == nil || !a.token.goodAt(now) {
		return Token{}, ErrToken
	}
	t.mu.Lock()
	t.used[a.token.ID] = now
	t.mu.Unlock()
	return *a.token, nil
}

// lookUp answers from memory while that is fresh; otherwise all who ask for
// the same token at the same time share one question to the database.
func (t *Tokens) lookUp(ctx context.Context, hash [sha256.Size]byte) (answer, error) {
	t.mu.Lock()
	a, ok := t.known[hash]
	t.mu.Unlock()
	if ok && t.now().Sub(a.at) < Freshness {
		return a, nil
	}
	flight := t.flights.DoChan(string(hash[:]), func() (any, error) {
		// One caller's hanging up must not fail the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		asked := t.now()
		rows, err := t.pool.Query(ctx, `SELECT `+tokenColumns+` FROM tokens WHERE hash = $1`, hash[:])
		if err != nil {
			return answer{}, err
		}
		k, err := pgx.CollectExactlyOneRow(rows, scanToken)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return answer{}, err
		}
		a := answer{at: asked}
		if err == nil {
			a.token = &k
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if len(t.known) >= cacheSize {
			clear(t.known)
		}
		t.known[hash] = a
		return a, nil
	})
	select {
	case r := <-flight:
		if r.Err != nil {
			return answer{}, r.Err
		}
		a, _ := r.Val.(answer)
		return a, nil
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

// Flush writes down when tokens were last used.
func (t *Tokens) Flush(ctx context.Context) error {
	t.mu.Lock()
	used := t.used
	t.used = map[string]time.Time{}
	t.mu.Unlock()
	if len(used) == 0 {
		return nil
	}
	ids, times := make([]string, 0, len(used)), make([]time.Time, 0, len(used))
	for id, at := range used {
		ids, times = append(ids, id), append(times, at)
	}
	_, err := t.pool.Exec(ctx, `UPDATE tokens SET last_used_at = greatest(last_used_at, u.at)
		FROM unnest($1::text[], $2::timestamptz[]) AS u (id, at) WHERE tokens.id = u.id`, ids, times)
	return err
}

// Run flushes every interval until ctx ends, and once more then.
func (t *Tokens) Run(ctx context.Context, interval time.Duration, log *slog.Logger) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if err := t.Flush(last); err != nil {
				log.Warn("the last use of tokens is not recorded", "error", err)
			}
			return
		}
		if err := t.Flush(ctx); err != nil && ctx.Err() == nil {
			log.Warn("the last use of tokens is not recorded", "error", err)
		}
	}
}
