package signin

import (
	"context"
	"strings"
	"time"

	"github.com/muster-id/muster/domain"
)

// maxInitFailures is the number of wrong initialization codes of one user, over
// all codes, after which the user cannot ask for another mail. Whoever guesses
// has that many and MaxCodeAttempts guesses at one of 36^6 codes, however long
// they try; an operator's new code goes on from there.
const maxInitFailures = 20

// resendPause is how long a user waits between two mails.
const resendPause = time.Minute

// typed is a code as a person types it: case and blanks do not matter.
func typed(code string) string {
	return strings.ToUpper(strings.Join(strings.Fields(code), ""))
}

// CheckInitialization judges the code of an initialization mail without using
// it, and says who it belongs to. A wrong one is counted. Errors are the
// domain's: ErrCodeMissing (unknown user, or the account is complete),
// ErrUserNotActive, or ErrCodeInvalid because of ErrCodeExpired, ErrCodeUsedUp
// or ErrCodeWrong (errors.Is finds both).
func (s *Service) CheckInitialization(ctx context.Context, userID, code string) (Person, error) {
	u, err := s.change(ctx, userID, func(u *domain.User, at time.Time) (domain.Decision, error) {
		return u.CheckInitialization(typed(code), at)
	})
	if err != nil {
		return Person{}, err
	}
	return personOf(u), nil
}

// Initialize completes an account: the code is used up, the e-mail address is
// the user's, and plain becomes the password. An empty plain keeps the password
// that the user has come with; without one it is ErrPasswordMissing. Other
// errors are those of CheckInitialization and of the policy.
func (s *Service) Initialize(ctx context.Context, userID, code, plain string) (Person, error) {
	// The code comes first: neither the policy nor the pool works for somebody
	// who has none.
	p, err := s.CheckInitialization(ctx, userID, code)
	if err != nil {
		return Person{}, err
	}
	hash := ""
	switch {
	case plain != "":
		if hash, err = s.newHash(ctx, plain); err != nil {
			return Person{}, err
		}
	case !p.HasPassword:
		return Person{}, ErrPasswordMissing
	}
	u, err := s.change(ctx, userID, func(u *domain.User, at time.Time) (domain.Decision, error) {
		return u.Initialize(typed(code), hash, at)
	})
	if err != nil {
		return Person{}, err
	}
	return personOf(u), nil
}

// newHash judges a new password and hashes it.
func (s *Service) newHash(ctx context.Context, plain string) (string, error) {
	if err := s.cfg.Policy.CheckPassword(plain); err != nil {
		return "", err
	}
	if err := domain.CheckPlain(plain); err != nil {
		return "", err
	}
	return s.cfg.Passwords.Hash(ctx, plain)
}

// ResendInitialization has another initialization mail sent, to the address
// that is known. ErrAlreadyInitial (also for nobody's id), ErrUserNotActive,
// ErrResendSoon, ErrResendRefused.
func (s *Service) ResendInitialization(ctx context.Context, userID string) error {
	code, err := domain.NewCode(s.cfg.Rand, domain.InitializationCode)
	if err != nil {
		return err
	}
	_, err = s.change(ctx, userID, func(u *domain.User, at time.Time) (domain.Decision, error) {
		switch {
		case !u.Exists():
			return domain.Decision{}, domain.ErrAlreadyInitial
		case u.InitFailures >= maxInitFailures:
			return domain.Decision{}, ErrResendRefused
		case u.InitCode != nil && !u.InitCode.Silent && at.Before(u.InitCode.Issued.Add(resendPause)):
			return domain.Decision{}, ErrResendSoon
		}
		return u.ResendInitialization("", code, at)
	})
	return err
}

// VerifyEmail uses the code of a mail that asks whether the address is the
// user's. Errors as those of CheckInitialization.
func (s *Service) VerifyEmail(ctx context.Context, userID, code string) (Person, error) {
	u, err := s.change(ctx, userID, func(u *domain.User, at time.Time) (domain.Decision, error) {
		return u.VerifyEmail(typed(code), at)
	})
	if err != nil {
		return Person{}, err
	}
	return personOf(u), nil
}
