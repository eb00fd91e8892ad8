package password

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sync/semaphore"
)

// The house algorithm: argon2id with the parameters of OWASP's password
// storage guidance.
const (
	houseMemory = 19456 // KiB
	housePasses = 2
	houseLanes  = 1
	houseSalt   = 16 // bytes
	houseKey    = 32 // bytes
)

var housePrefix = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, houseMemory, housePasses, houseLanes)

// Hash hashes a password, 1 to [MaxPlain] bytes without a NUL, with the house algorithm. The
// salt is read from random. It takes 19 MiB and some tens of milliseconds;
// callers that serve many should go through a [Pool].
func Hash(random io.Reader, plain string) (string, error) {
	if !usable(plain) {
		return "", refuse(ErrMalformed, "", "the password is empty, too long or holds a NUL")
	}
	salt := make([]byte, houseSalt)
	if _, err := io.ReadFull(random, salt); err != nil {
		return "", fmt.Errorf("reading a salt: %w", err)
	}
	key := argon2.IDKey([]byte(plain), salt, housePasses, houseMemory, houseLanes, houseKey)
	return housePrefix + encodeB64(salt) + "$" + encodeB64(key), nil
}

// NeedsRehash reports whether a hash should be replaced by one of the house
// algorithm once the password is known: at the first login.
func NeedsRehash(encoded string) bool {
	d, err := parse(encoded)
	if err != nil || d.kind != kArgon2 || !d.id || d.version != argon2.Version || d.ref != "" {
		return true
	}
	size, _ := d.sum.size()
	salt, _ := d.salt.size()
	return d.n != houseMemory || d.r != housePasses || d.p != houseLanes || size != houseKey || salt < houseSalt
}

// Pool lets only so many hashes be computed at a time, so that neither a crowd
// at the login nor an import of plain passwords takes the whole machine. It
// has no goroutines; waiting callers are served in order. An import and the
// login should each have their own, so that neither waits for the other.
type Pool struct {
	random io.Reader
	size   int64
	slots  *semaphore.Weighted
}

// heavy is the memory from which one verification has a pool for itself: the
// bounds allow a hash of 1 GiB, and several of them at once are too much.
const heavy = 64 << 20 // bytes

// NewPool returns a pool for size computations at a time; 0 or less means
// GOMAXPROCS. random gives the salts and has to be safe for concurrent use, as
// crypto/rand.Reader is.
func NewPool(size int, random io.Reader) *Pool {
	if size <= 0 {
		size = runtime.GOMAXPROCS(0)
	}
	return &Pool{random: random, size: int64(size), slots: semaphore.NewWeighted(int64(size))}
}

// Hash waits for a slot and hashes as the function [Hash] does. If ctx ends
// before the work has begun, it returns ctx's error.
func (p *Pool) Hash(ctx context.Context, plain string) (string, error) {
	if err := p.acquire(ctx, 1); err != nil {
		return "", err
	}
	defer p.slots.Release(1)
	return Hash(p.random, plain)
}

// Verify waits for a slot and verifies as the function [Verify] does; what
// Recognise refuses is refused without waiting.
func (p *Pool) Verify(ctx context.Context, encoded, plain string, secrets Secrets) (bool, error) {
	d, err := parse(encoded)
	if err != nil {
		return false, err
	}
	weight := p.weight(&d)
	if err := p.acquire(ctx, weight); err != nil {
		return false, err
	}
	defer p.slots.Release(weight)
	return verify(ctx, &d, plain, secrets, nil)
}

// weight returns how many slots a verification takes.
func (p *Pool) weight(d *digest) int64 {
	if d.memory() > heavy {
		return p.size
	}
	return 1
}

func (p *Pool) acquire(ctx context.Context, weight int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return p.slots.Acquire(ctx, weight)
}

// memory returns about how many bytes verifying takes.
func (d *digest) memory() int {
	switch d.kind {
	case kArgon2:
		return d.n << 10
	case kScrypt, kFirebase, kYescrypt:
		return d.r << (d.n + 7)
	}
	return 0
}
