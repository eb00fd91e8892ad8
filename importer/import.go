// Package importer takes people in: it runs the import command of one person,
// and the jobs that run it for many.
//
// A command's way is straight: the rules of package domain check and decide,
// a plain password is hashed in between, and the event store commits. The
// store's verdicts come back as the domain's errors, so a caller sees one error
// model whichever step refused.
package importer

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/eventstore"
)

// Importer runs the import command. It is safe for concurrent use.
type Importer struct {
	Store *eventstore.Store
	// Passwords hashes plain passwords, a bounded number at a time.
	Passwords *password.Pool
	// Policy is what imports have to meet.
	Policy domain.Policy
	// Reserved finds what Policy.Reserved has to be for imports into an
	// organisation. It is asked once an import and once a chunk of a job, so it
	// has to be cheap. nil: no domains are reserved.
	Reserved func(ctx context.Context, org string) (func(domain string) bool, error)
	// Now is the clock; nothing but times shown to people depends on it.
	Now func() time.Time
	// Rand gives ids and codes; it must be safe for concurrent use, as
	// crypto/rand.Reader is.
	Rand io.Reader
}

// Caller is who commands: a token, or the service itself.
type Caller struct {
	// ID names the caller in the events.
	ID string
	// Org is the organisation that the command is for.
	Org string
}

// Outcome is what became of a command that succeeded.
type Outcome struct {
	// Result says where the events are; Result.Stream is the user's id.
	Result eventstore.Result
	// Passkey is the code of the passkey link, when one was asked for.
	Passkey *domain.Code
	// EmailCode and PhoneCode are set when the command asked for codes to be
	// returned rather than sent.
	EmailCode, PhoneCode *domain.Code
	// Warnings name what was accepted but is worth a look.
	Warnings []domain.Warning
}

var (
	errIdempotencyMismatch = domain.NewError(domain.KindInvalidArgument, "MUSTER-idempotency",
		"Idempotency key was used for another request")
	errUserIDTaken = domain.NewError(domain.KindAlreadyExists, "V3-DKcYh", "User already exists").OnField("userId")
	errUnavailable = domain.NewError(domain.KindUnavailable, "", "The service is not available, nothing was changed")
	errTimeout     = domain.NewError(domain.KindDeadlineExceeded, "", "The request took too long, its outcome is not known")
	errCanceled    = domain.NewError(domain.KindCanceled, "", "The request was cancelled, its outcome is not known")
)

// Import takes a person in. With idem, a repetition of the same request gets
// the first one's outcome and nothing is appended. Its errors are *domain.Error.
func (i *Importer) Import(ctx context.Context, caller Caller, cmd domain.ImportHuman, idem *eventstore.Idempotency) (Outcome, error) {
	if idem != nil {
		// A repetition must not be judged anew: its own user would be in its way.
		r, ok, err := i.Store.Repeat(ctx, *idem)
		if err != nil {
			return Outcome{}, storeError(err)
		}
		if ok {
			return i.outcome(ctx, r, cmd, nil)
		}
	}
	policy := i.Policy
	if policy.Recognise == nil {
		policy.Recognise = withoutSecrets
	}
	if err := i.reserve(ctx, caller.Org, &policy); err != nil {
		return Outcome{}, err
	}
	p, err := i.prepare(ctx, policy, caller, cmd)
	if err != nil {
		return Outcome{}, err
	}
	p.append.Idempotency = idem
	r, err := i.Store.Append(ctx, p.append)
	if err != nil {
		return Outcome{}, storeError(err)
	}
	if r.Repeated {
		return i.outcome(ctx, r, cmd, p.outcome.Warnings)
	}
	p.outcome.Result = r
	return p.outcome, nil
}

// reserve puts into a policy which domains an organisation's users may not have
// in their names just now.
func (i *Importer) reserve(ctx context.Context, org string, p *domain.Policy) (err error) {
	if i.Reserved == nil {
		return nil
	}
	if p.Reserved, err = i.Reserved(ctx, org); err != nil {
		return storeError(err)
	}
	return nil
}

// withoutSecrets judges hashes as the policy of a single import, which has no
// way to tell a secret: a hash that refers to one could never be verified.
func withoutSecrets(encoded string) (password.Format, error) {
	f, err := password.Recognise(encoded)
	if err == nil && f.Secret != "" {
		return password.Format{}, &password.Error{Kind: password.ErrSecretMissing, Format: f.Name}
	}
	return f, err
}

// prepared is a command that is decided and only has to be committed.
type prepared struct {
	append  eventstore.Append
	outcome Outcome // without the result
}

// prepare does all but the commit.
func (i *Importer) prepare(ctx context.Context, policy domain.Policy, caller Caller, cmd domain.ImportHuman) (prepared, error) {
	human, warnings, err := cmd.Normalise(policy)
	if err != nil {
		return prepared{}, err
	}
	facts := domain.Facts{Org: caller.Org, At: i.Now()}
	if human.UserID == "" {
		id, err := ulid.New(ulid.Timestamp(facts.At), i.Rand)
		if err != nil {
			return prepared{}, domain.Wrapf(err, "making a user id")
		}
		facts.UserID = id.String()
	}
	if human.NeedsHash() {
		if facts.PasswordHash, err = i.Passwords.Hash(ctx, human.Password); err != nil {
			return prepared{}, storeError(err)
		}
	}
	if err := i.drawCodes(human.Codes(), &facts); err != nil {
		return prepared{}, err
	}
	p := prepared{append: toAppend(human.Import(facts), caller.ID, facts.At), outcome: Outcome{Warnings: warnings}}
	if human.RequestPasskey {
		p.outcome.Passkey = &facts.Passkey
	}
	if human.Email.Mode == domain.VerifyReturn && facts.Email.Secret != "" {
		p.outcome.EmailCode = &facts.Email
	}
	if human.Phone != nil && human.Phone.Mode == domain.VerifyReturn && facts.Phone.Secret != "" {
		p.outcome.PhoneCode = &facts.Phone
	}
	return p, nil
}

func (i *Importer) drawCodes(needs domain.CodeNeeds, f *domain.Facts) error {
	for _, c := range []struct {
		need bool
		spec domain.CodeSpec
		code *domain.Code
	}{
		{needs.Init, domain.InitializationCode, &f.Init},
		{needs.Email, domain.EmailCode, &f.Email},
		{needs.Phone, domain.PhoneCode, &f.Phone},
		{needs.Passkey, domain.PasskeyCode, &f.Passkey},
	} {
		if !c.need {
			continue
		}
		code, err := domain.NewCode(i.Rand, c.spec)
		if err != nil {
			return domain.Wrapf(err, "drawing a code")
		}
		*c.code = code
	}
	if needs.Passkey {
		id, err := ulid.New(ulid.Timestamp(f.At), i.Rand)
		if err != nil {
			return domain.Wrapf(err, "making a code id")
		}
		f.Passkey.ID = id.String()
	}
	return nil
}

// toAppend turns a decision into what the event store commits.
func toAppend(d domain.Decision, actor string, at time.Time) eventstore.Append {
	a := eventstore.Append{
		Stream:   d.Stream,
		Org:      d.Org,
		Actor:    actor,
		Expected: eventstore.Expected(d.Expected),
		At:       at,
		Events:   make([]eventstore.NewEvent, len(d.Events)),
	}
	for k, e := range d.Events {
		data, personal := domain.Encode(e)
		a.Events[k] = eventstore.NewEvent{Type: e.Type(), Schema: e.Schema(), Data: data, Personal: personal}
	}
	for _, c := range d.Take {
		a.Take = append(a.Take, eventstore.Claim(c))
	}
	for _, c := range d.Release {
		a.Release = append(a.Release, eventstore.Claim(c))
	}
	return a
}

// outcome tells again what an earlier append of the same command led to, from
// its events.
func (i *Importer) outcome(ctx context.Context, r eventstore.Result, cmd domain.ImportHuman, warnings []domain.Warning) (Outcome, error) {
	out := Outcome{Result: r, Warnings: warnings}
	events, err := i.Store.ReadStream(ctx, r.Stream, r.First-1)
	if err != nil {
		return Outcome{}, storeError(err)
	}
	events = events[:min(len(events), int(r.Last-r.First+1))]
	if err := i.Store.Open(ctx, events); err != nil {
		return Outcome{}, storeError(err)
	}
	for _, e := range events {
		decoded, err := domain.Decode(e.Type, e.Schema, e.Data, e.Personal)
		if err != nil {
			return Outcome{}, domain.Wrapf(err, "reading back position %d", e.Position)
		}
		switch v := decoded.(type) {
		case domain.PasskeyRegistrationRequested:
			out.Passkey = &domain.Code{ID: v.CodeID, Secret: v.Secret, Lifetime: v.Lifetime}
		case domain.EmailCodeAdded:
			if cmd.Email.Mode == domain.VerifyReturn {
				out.EmailCode = &domain.Code{Secret: v.Secret, Lifetime: v.Lifetime}
			}
		case domain.PhoneCodeAdded:
			if cmd.Phone != nil && cmd.Phone.Mode == domain.VerifyReturn {
				out.PhoneCode = &domain.Code{Secret: v.Secret, Lifetime: v.Lifetime}
			}
		}
	}
	return out, nil
}

// storeError turns the event store's verdicts into the domain's errors.
func storeError(err error) error {
	var (
		conflict *eventstore.ConflictError
		sequence *eventstore.SequenceError
		known    *domain.Error
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &conflict):
		return domain.Claim(conflict.Claim).ConflictError()
	case errors.As(err, &sequence) && sequence.Expected == eventstore.NoStream:
		return errUserIDTaken
	case errors.As(err, &sequence):
		return domain.NewError(domain.KindAborted, "MUSTER-sequence", "The user was changed by another request").Because(err)
	case errors.Is(err, eventstore.ErrIdempotencyMismatch):
		return errIdempotencyMismatch
	case errors.Is(err, eventstore.ErrErased):
		return domain.NewError(domain.KindFailedPrecondition, "MUSTER-erased", "User is already erased")
	case errors.Is(err, eventstore.ErrUnavailable):
		return errUnavailable.Because(err)
	case errors.Is(err, context.DeadlineExceeded):
		return errTimeout.Because(err)
	case errors.Is(err, context.Canceled):
		return errCanceled.Because(err)
	}
	return domain.AsError(err)
}
