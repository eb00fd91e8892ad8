package handlers

import (
	"context"
	"crypto/rand"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/importer"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
	zitadelv1 "github.com/muster-id/muster/proto/zitadel/v1"
)

// The headers, or gRPC metadata, that are Muster's own.
const (
	idempotencyHeader = "Idempotency-Key"
	// positionHeader says where a write ended up in the log: a bare number.
	positionHeader = "Muster-Position"
	// positionTokenHeader is the same with the history that it counts in:
	// "<log id>.<epoch>.<position>".
	positionTokenHeader = "Muster-Position-Token"
	// minPositionHeader makes a read wait for a position, in either form.
	minPositionHeader = "Muster-Min-Position"
	// asOfHeader makes a read of one user look back, as the query's asOf does.
	asOfHeader = "Muster-As-Of"
	// pageHeader makes a list go on behind the answer whose nextPageHeader it
	// repeats.
	pageHeader     = "Muster-Page"
	nextPageHeader = "Muster-Next-Page"
)

// management is the prefix of the service's full method names.
const management = "zitadel.management.v1.ManagementService."

func (s *server) bindManagement() {
	bind(s, management+"ImportHumanUser", access.UserWrite, s.importHumanUser)
	bind(s, management+"DeactivateUser", access.UserWrite, s.deactivateUser)
	bind(s, management+"ReactivateUser", access.UserWrite, s.reactivateUser)
	bind(s, management+"LockUser", access.UserWrite, s.lockUser)
	bind(s, management+"UnlockUser", access.UserWrite, s.unlockUser)
	bind(s, management+"RemoveUser", access.UserWrite, s.removeUser)
	bind(s, management+"ResendHumanInitialization", access.UserWrite, s.resendHumanInitialization)
	s.bindReads()
	const lines = "With lines of JSON: "
	s.extras[management+"ImportHumanUser"] = []parameter{
		keyParameter,
		{"dryRun", "query", lines + "answer as if, and append nothing.", aFlag},
		{"onConflict", "query", lines + "what becomes of a line whose user exists.", object{"type": "string", "enum": []string{"fail", "skip", "update"}, "default": "fail"}},
		{"notify", "query", lines + "whether people are mailed.", object{"type": "string", "enum": []string{"none", "init"}, "default": "none"}},
		{"jobId", "query", lines + "the job's id; the same again resumes it.", aText},
		{"fromLine", "query", lines + "the number of the body's first line.", object{"type": "integer", "minimum": 1}},
		{"verifyURL", "query", lines + "where the old system checks passwords of those who come without a hash.", aText},
		{verifyHeader, "header", lines + "what goes along to verifyURL as Authorization.", aText},
	}
}

func isBulkPath(path string) bool { return path == "/management/v1/users/human/_import" }

// isBulk reports whether a request imports many: the import's URL with lines
// of JSON.
func isBulk(r *http.Request) bool {
	if r.Method != http.MethodPost || !isBulkPath(r.URL.Path) {
		return false
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return kind == "application/x-ndjson"
}

func (s *server) importHumanUser(ctx context.Context, req *managementv1.ImportHumanUserRequest) (*managementv1.ImportHumanUserResponse, error) {
	c := callOf(ctx)
	idem, err := c.idempotency("ImportHumanUser", req)
	if err != nil {
		return nil, err
	}
	cmd := ImportCommand(req)
	cmd.PasskeyOrigin = c.origin
	out, err := s.deps.Importer.Import(ctx, importer.Caller{ID: c.token.ID, Org: c.org}, cmd, idem)
	if err != nil {
		return nil, err
	}
	s.answerPosition(c, out.Result)
	res := &managementv1.ImportHumanUserResponse{
		UserId: out.Result.Stream,
		Details: &zitadelv1.ObjectDetails{
			Sequence:      uint64(out.Result.Last),
			CreationDate:  timestamppb.New(out.Result.At),
			ChangeDate:    timestamppb.New(out.Result.At),
			ResourceOwner: c.org,
		},
	}
	if code := out.Passkey; code != nil {
		res.PasswordlessRegistration = &managementv1.ImportHumanUserResponse_PasswordlessRegistration{
			Link:       domain.PasskeyLink(c.origin, out.Result.Stream, c.org, *code),
			Lifetime:   durationpb.New(code.Lifetime),
			Expiration: durationpb.New(code.Lifetime),
		}
	}
	return res, nil
}

// ImportCommand is the command that the wire's message asks for.
func ImportCommand(req *managementv1.ImportHumanUserRequest) domain.ImportHuman {
	p := req.GetProfile()
	cmd := domain.ImportHuman{
		UserName: req.GetUserName(),
		Profile: domain.Profile{
			FirstName: p.GetFirstName(), LastName: p.GetLastName(), NickName: p.GetNickName(), DisplayName: p.GetDisplayName(),
			PreferredLanguage: p.GetPreferredLanguage(), Gender: gender(int32(p.GetGender())),
		},
		Email:          domain.Email{Address: req.GetEmail().GetEmail(), Verified: req.GetEmail().GetIsEmailVerified()},
		Password:       req.GetPassword(),
		HashedPassword: req.GetHashedPassword().GetValue(),
		ChangeRequired: req.GetPasswordChangeRequired(),
		RequestPasskey: req.GetRequestPasswordlessRegistration(),
		TOTPSecret:     req.GetOtpCode(),
	}
	if ph := req.GetPhone(); ph != nil {
		cmd.Phone = &domain.Phone{Number: ph.GetPhone(), Verified: ph.GetIsPhoneVerified()}
	}
	for _, l := range req.GetIdps() {
		cmd.IDPLinks = append(cmd.IDPLinks, domain.IDPLink{ConfigID: l.GetConfigId(), ExternalUserID: l.GetExternalUserId(), DisplayName: l.GetDisplayName()})
	}
	return cmd
}

// gender takes a number outside the wire's set for unspecified.
func gender(n int32) domain.Gender {
	if n < int32(domain.GenderUnspecified) || n > int32(domain.GenderDiverse) {
		return domain.GenderUnspecified
	}
	return domain.Gender(n)
}

// idempotency reads the call's key; nil when there is none. What the key
// stands for is the caller, the organisation, the method and the message.
func (c *call) idempotency(method string, req proto.Message) (*eventstore.Idempotency, error) {
	keys := c.header.Values(idempotencyHeader)
	if len(keys) == 0 {
		return nil, nil
	}
	key := keys[0]
	visible := strings.IndexFunc(key, func(r rune) bool { return r < '!' || r > '~' }) < 0
	if len(keys) > 1 || key == "" || len(key) > 255 || !visible {
		return nil, errIdempotencyForm
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, err
	}
	request := append([]byte(c.org+"\x00"+method+"\x00"), body...)
	return &eventstore.Idempotency{Key: c.token.ID + "\x00" + key, Request: request}, nil
}

// answerPosition tells the caller where a write ended up.
func (s *server) answerPosition(c *call, r eventstore.Result) {
	token := append(make([]byte, 0, 64), s.logID...)
	token = append(token, '.')
	token = strconv.AppendInt(token, int64(r.Epoch), 10)
	token = append(token, '.')
	at := len(token)
	token = strconv.AppendInt(token, int64(r.Position), 10)
	// Both are spelled as a header is kept: a test would not find them else.
	text := string(token)
	c.out[positionHeader], c.out[positionTokenHeader] = []string{text[at:]}, []string{text}
}

// minPosition reads the position that a read has to wait for; 0 for none.
func (s *server) minPosition(c *call) (eventstore.Position, error) {
	return s.parsePosition(c.header.Get(minPositionHeader))
}

// parsePosition reads a position: a bare number, or the token that says which
// history it counts in. Nothing is 0.
func (s *server) parsePosition(text string) (eventstore.Position, error) {
	if text == "" {
		return 0, nil
	}
	parts := strings.Split(text, ".")
	if len(parts) != 1 && len(parts) != 3 {
		return 0, errPosition
	}
	n, err := strconv.ParseInt(parts[len(parts)-1], 10, 64)
	if err != nil || n < 0 {
		return 0, errPosition
	}
	if len(parts) == 3 && (parts[0] != s.deps.Store.LogID().String() || parts[1] != strconv.Itoa(int(s.deps.Store.Epoch()))) {
		return 0, errOtherHistory
	}
	return eventstore.Position(n), nil
}

// attempts bounds how often a command is decided anew because somebody else
// changed the user between reading and appending.
const attempts = 5

// change loads a user of the call's organisation, lets decide judge, and
// appends. Somebody else's user is as absent as one who does not exist: decide
// gets an empty one, and says so in the words of its command.
func (s *server) change(ctx context.Context, id string, decide func(u *domain.User, at time.Time) (domain.Decision, error)) (*zitadelv1.ObjectDetails, error) {
	c := callOf(ctx)
	for range attempts {
		u, _, err := s.stream(ctx, c.org, id)
		if err != nil {
			return nil, err
		}
		at := s.deps.Now()
		d, err := decide(u, at)
		if err != nil {
			return nil, err
		}
		r, err := s.deps.Store.Append(ctx, access.NewAppend(d, c.token.ID, at))
		if faster := (*eventstore.SequenceError)(nil); errors.As(err, &faster) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.answerPosition(c, r)
		return &zitadelv1.ObjectDetails{Sequence: uint64(r.Last), ChangeDate: timestamppb.New(r.At), ResourceOwner: c.org}, nil
	}
	return nil, errBusyUser
}

// timeless makes a decision that needs no clock fit for change.
func timeless(decide func(*domain.User) (domain.Decision, error)) func(*domain.User, time.Time) (domain.Decision, error) {
	return func(u *domain.User, _ time.Time) (domain.Decision, error) { return decide(u) }
}

func (s *server) deactivateUser(ctx context.Context, req *managementv1.DeactivateUserRequest) (*managementv1.DeactivateUserResponse, error) {
	d, err := s.change(ctx, req.GetId(), timeless((*domain.User).Deactivate))
	return &managementv1.DeactivateUserResponse{Details: d}, err
}

func (s *server) reactivateUser(ctx context.Context, req *managementv1.ReactivateUserRequest) (*managementv1.ReactivateUserResponse, error) {
	d, err := s.change(ctx, req.GetId(), timeless((*domain.User).Reactivate))
	return &managementv1.ReactivateUserResponse{Details: d}, err
}

func (s *server) lockUser(ctx context.Context, req *managementv1.LockUserRequest) (*managementv1.LockUserResponse, error) {
	d, err := s.change(ctx, req.GetId(), timeless((*domain.User).Lock))
	return &managementv1.LockUserResponse{Details: d}, err
}

func (s *server) unlockUser(ctx context.Context, req *managementv1.UnlockUserRequest) (*managementv1.UnlockUserResponse, error) {
	d, err := s.change(ctx, req.GetId(), timeless((*domain.User).Unlock))
	return &managementv1.UnlockUserResponse{Details: d}, err
}

func (s *server) removeUser(ctx context.Context, req *managementv1.RemoveUserRequest) (*managementv1.RemoveUserResponse, error) {
	d, err := s.change(ctx, req.GetId(), timeless((*domain.User).Remove))
	return &managementv1.RemoveUserResponse{Details: d}, err
}

func (s *server) resendHumanInitialization(ctx context.Context, req *managementv1.ResendHumanInitializationRequest) (*managementv1.ResendHumanInitializationResponse, error) {
	code, err := domain.NewCode(rand.Reader, domain.InitializationCode)
	if err != nil {
		return nil, err
	}
	d, err := s.change(ctx, req.GetUserId(), func(u *domain.User, at time.Time) (domain.Decision, error) {
		return u.ResendInitialization(req.GetEmail(), code, at)
	})
	return &managementv1.ResendHumanInitializationResponse{Details: d}, err
}

// serveBulk answers lines of JSON; what the lines hold is not this room's.
func (s *server) serveBulk(e echo.Context) error {
	ctx := e.Request().Context()
	c := callOf(ctx)
	c.header = metadata(c.header)
	if err := s.authenticate(ctx, c, access.UserWrite); err != nil {
		return err
	}
	if s.deps.Bulk == nil {
		return errUnimplemented
	}
	return s.deps.Bulk(e.Response(), e.Request(), importer.Caller{ID: c.token.ID, Org: c.org}, c.origin)
}
