package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/projections"
	changev1 "github.com/muster-id/muster/proto/zitadel/change/v1"
	idpv1 "github.com/muster-id/muster/proto/zitadel/idp/v1"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
	userv1 "github.com/muster-id/muster/proto/zitadel/user/v1"
	zitadelv1 "github.com/muster-id/muster/proto/zitadel/v1"
)

// What concerns one user is read so that it sees every write that has been
// answered: by id from the read model with the log's newer events folded onto
// it, history and links from the user's own stream. Only searching may lag, and
// waits for a position when it is told to.

// Bounds of a list.
const (
	defaultLimit = 100
	maxLimit     = projections.MaxLimit
)

var (
	errLimit  = domain.NewError(domain.KindInvalidArgument, "QUERY-4M0fs", "Limit is larger than 1000")
	errAsOf   = domain.NewError(domain.KindInvalidArgument, "MUSTER-asof", "asOf must be a time of RFC 3339 or a position")
	errOffset = domain.NewError(domain.KindInvalidArgument, "MUSTER-offset", "Offset is too large")
)

func (s *server) bindReads() {
	bind(s, management+"GetUserByID", access.UserRead, s.getUserByID)
	bind(s, management+"GetUserByLoginNameGlobal", access.UserRead, s.getUserByLoginNameGlobal)
	bind(s, management+"ListUsers", access.UserRead, s.listUsers)
	bind(s, management+"ListUserChanges", access.UserRead, s.listUserChanges)
	bind(s, management+"ListHumanLinkedIDPs", access.UserRead, s.listHumanLinkedIDPs)
	bind(s, management+"IsUserUnique", access.UserRead, s.isUserUnique)

	for _, name := range []protoreflect.FullName{"GetUserByID", "GetUserByLoginNameGlobal", "ListUsers", "ListUserChanges", "ListHumanLinkedIDPs", "IsUserUnique"} {
		s.extras[management+name] = []parameter{minParameter}
	}
	s.extras[management+"GetUserByID"] = []parameter{minParameter,
		{"asOf", "query", "The user as of a time (RFC 3339) or a position of the log. Over gRPC: the metadata muster-as-of.", aText},
		{asOfHeader, "header", "The same as asOf.", aText},
	}
	s.extras[management+"ListUsers"] = []parameter{minParameter,
		{pageHeader, "header", "Go on where another answer ended: the value of its " + nextPageHeader + ". In contrast to an offset, " +
			"users who come in or go in the meantime move nothing: whoever is there all the time is met exactly once. " +
			"The sorting is that of the first page; queries are to be repeated, the offset is to be left out.", aText},
	}
}

// stream reads a user's facts, opened; none when the user is not of the
// organisation, or of none when org is "". The error wraps
// domain.ErrUnknownEvent when a later program has written some of them: the
// facts are there then, and the user is what the others make of it.
func (s *server) stream(ctx context.Context, org, id string) (*domain.User, []eventstore.Event, error) {
	if strings.HasPrefix(id, eventstore.SystemPrefix) {
		return domain.NewUser(id, org), nil, nil
	}
	events, err := s.deps.Store.ReadStream(ctx, id, 0)
	if err != nil || len(events) == 0 || org != "" && events[0].Org != org {
		return domain.NewUser(id, org), nil, err
	}
	if err := s.deps.Store.Open(ctx, events); err != nil {
		return nil, nil, err
	}
	u := domain.NewUser(id, events[0].Org)
	var unknown error
	for _, e := range events {
		fact, err := domain.Decode(e.Type, e.Schema, e.Data, e.Personal)
		switch {
		case err == nil:
			u.Apply(fact)
		case errors.Is(err, domain.ErrUnknownEvent):
			unknown = err
		default:
			return nil, nil, err
		}
	}
	return u, events, unknown
}

// history reads a user who is there, with the facts.
func (s *server) history(ctx context.Context, id string) (*domain.User, []eventstore.Event, error) {
	c := callOf(ctx)
	if err := s.reach(ctx, c, ""); err != nil {
		return nil, nil, err
	}
	u, events, err := s.stream(ctx, c.org, id)
	if err == nil && !u.Exists() {
		err = projections.ErrUserNotFound
	}
	return u, events, err
}

// reach waits for the position that the caller asks for: in a read model, or,
// with no name, in the log.
func (s *server) reach(ctx context.Context, c *call, model string) error {
	position, err := s.minPosition(c)
	if err != nil || position == 0 {
		return err
	}
	if model != "" {
		return s.deps.Projections.WaitFor(ctx, model, position)
	}
	bounded, cancel := context.WithTimeout(ctx, s.deps.Patience)
	defer cancel()
	err = s.deps.Store.Wait(bounded, position-1)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		head, err := s.deps.Store.Head(ctx)
		if err != nil {
			return err
		}
		return domain.NewError(domain.KindDeadlineExceeded, errNotYet.ID, fmt.Sprintf(errNotYet.Message, head.Position, position))
	}
	return err
}

func userMessage(u projections.User) *userv1.User {
	m := &userv1.User{
		Id:    u.ID,
		State: userv1.UserState(u.State),
		Details: &zitadelv1.ObjectDetails{
			Sequence: uint64(u.Sequence), CreationDate: stamp(u.Created), ChangeDate: stamp(u.Changed), ResourceOwner: u.Org,
		},
		UserName: u.UserName, LoginNames: u.LoginNames, PreferredLoginName: u.LoginNames[0],
	}
	human := &userv1.Human{
		Profile: &userv1.Profile{
			FirstName: u.Profile.FirstName, LastName: u.Profile.LastName, NickName: u.Profile.NickName,
			DisplayName: u.Profile.DisplayName, PreferredLanguage: u.Profile.PreferredLanguage, Gender: userv1.Gender(u.Profile.Gender),
		},
		Email:           &userv1.Email{Email: u.Email, IsEmailVerified: u.EmailVerified},
		PasswordChanged: stamp(u.PasswordChanged),
	}
	if u.Phone != "" {
		human.Phone = &userv1.Phone{Phone: u.Phone, IsPhoneVerified: u.PhoneVerified}
	}
	m.Type = &userv1.User_Human{Human: human}
	return m
}

func (s *server) getUserByID(ctx context.Context, req *managementv1.GetUserByIDRequest) (*managementv1.GetUserByIDResponse, error) {
	c := callOf(ctx)
	if err := s.reach(ctx, c, ""); err != nil {
		return nil, err
	}
	u, err := s.userAsOf(ctx, c, req.GetId())
	if err != nil {
		return nil, err
	}
	return &managementv1.GetUserByIDResponse{User: userMessage(u)}, nil
}

// userAsOf reads a user as the query's asOf or the metadata's Muster-As-Of
// wants: at a time (RFC 3339) or a position of the log, from the events; without
// either, now.
func (s *server) userAsOf(ctx context.Context, c *call, id string) (projections.User, error) {
	scope, text := projections.InOrg(c.org), cmp.Or(c.query.Get("asOf"), c.header.Get(asOfHeader))
	if text == "" {
		return s.deps.Projections.UserByID(ctx, scope, id)
	}
	// An unescaped + of a zone arrives as a blank.
	if at, err := time.Parse(time.RFC3339, strings.ReplaceAll(text, " ", "+")); err == nil {
		return s.deps.Projections.UserAtTime(ctx, scope, id, at)
	}
	position, err := s.parsePosition(text)
	switch {
	case errors.Is(err, errPosition):
		return projections.User{}, errAsOf
	case err != nil:
		return projections.User{}, err
	}
	return s.deps.Projections.UserAsOf(ctx, scope, id, position)
}

// scope is where a call that is global on the wire may look: everywhere for
// who may see all, else in the call's organisation.
func (c *call) scope() projections.Scope {
	if c.token.Role.AnyOrganisation() {
		return projections.Everywhere()
	}
	return projections.InOrg(c.org)
}

// getUserByLoginNameGlobal asks the log who owns the name, so that a user who
// has just come in is found at once.
func (s *server) getUserByLoginNameGlobal(ctx context.Context, req *managementv1.GetUserByLoginNameGlobalRequest) (*managementv1.GetUserByLoginNameGlobalResponse, error) {
	c := callOf(ctx)
	if err := s.reach(ctx, c, ""); err != nil {
		return nil, err
	}
	id, err := s.deps.Store.Owner(ctx, eventstore.Claim(domain.LoginNameClaim(req.GetLoginName())))
	if err != nil {
		return nil, err
	}
	u, err := s.deps.Projections.UserByID(ctx, c.scope(), id)
	if err != nil {
		return nil, err
	}
	return &managementv1.GetUserByLoginNameGlobalResponse{User: userMessage(u)}, nil
}

// isUserUnique judges a user name over the whole service, where it has to be
// unique, for who may write and would learn it by trying; for who may only
// read, within the organisation, as e-mail addresses always are.
func (s *server) isUserUnique(ctx context.Context, req *managementv1.IsUserUniqueRequest) (*managementv1.IsUserUniqueResponse, error) {
	c := callOf(ctx)
	if name := req.GetUserName(); name != "" {
		id, err := s.deps.Store.Owner(ctx, eventstore.Claim(domain.LoginNameClaim(name)))
		if err != nil {
			return nil, err
		}
		taken := id != ""
		if taken && !c.token.Role.May(access.UserWrite) {
			u, _, err := s.stream(ctx, c.org, id)
			if err != nil {
				return nil, err
			}
			taken = u.Exists()
		}
		if taken {
			return &managementv1.IsUserUniqueResponse{}, nil
		}
	}
	if address := strings.TrimSpace(req.GetEmail()); address != "" {
		if err := s.reach(ctx, c, usersModel); err != nil {
			return nil, err
		}
		found, err := s.deps.Projections.SearchUsers(ctx, projections.InOrg(c.org),
			projections.Search{Filters: []projections.Filter{{Emails: []string{address}}}, Limit: 1})
		if err != nil {
			return nil, err
		}
		if found.Total > 0 {
			return &managementv1.IsUserUniqueResponse{}, nil
		}
	}
	return &managementv1.IsUserUniqueResponse{IsUnique: true}, nil
}

// usersModel is the read model that searches ask.
const usersModel = "users"

// window reads a list's offset and limit.
func window(q *zitadelv1.ListQuery) (offset, limit int, err error) {
	switch {
	case q.GetLimit() > maxLimit:
		return 0, 0, errLimit
	case q.GetOffset() > 1<<31:
		return 0, 0, errOffset
	}
	return int(q.GetOffset()), cmp.Or(int(q.GetLimit()), defaultLimit), nil
}

func (s *server) listUsers(ctx context.Context, req *managementv1.ListUsersRequest) (*managementv1.ListUsersResponse, error) {
	c := callOf(ctx)
	offset, limit, err := window(req.GetQuery())
	if err != nil {
		return nil, err
	}
	if err := s.reach(ctx, c, usersModel); err != nil {
		return nil, err
	}
	found, err := s.deps.Projections.SearchUsers(ctx, projections.InOrg(c.org), projections.Search{
		Filters: filters(req.GetQueries()), Sort: projections.Field(req.GetSortingColumn()),
		Descending: !req.GetQuery().GetAsc(), Offset: offset, Limit: limit, Page: c.header.Get(pageHeader),
	})
	if err != nil {
		return nil, err
	}
	if found.Next != "" {
		c.out.Set(nextPageHeader, found.Next)
	}
	res := &managementv1.ListUsersResponse{
		Details: &zitadelv1.ListDetails{
			TotalResult: uint64(found.Total), ProcessedSequence: uint64(found.Position), ViewTimestamp: stamp(found.Time),
		},
		SortingColumn: req.GetSortingColumn(),
	}
	for _, u := range found.Users {
		res.Result = append(res.Result, userMessage(u))
	}
	return res, nil
}

// filters translates the wire's queries; how many and how deep is for the read
// model to judge.
func filters(queries []*userv1.SearchQuery) []projections.Filter {
	out := make([]projections.Filter, 0, len(queries))
	for _, q := range queries {
		var f projections.Filter
		text := func(field projections.Field, value string, m zitadelv1.TextQueryMethod) {
			f.Text = &projections.TextFilter{Field: field, Value: value, Method: projections.Method(m)}
		}
		switch q := q.GetQuery().(type) {
		case *userv1.SearchQuery_UserNameQuery:
			text(projections.FieldUserName, q.UserNameQuery.GetUserName(), q.UserNameQuery.GetMethod())
		case *userv1.SearchQuery_FirstNameQuery:
			text(projections.FieldFirstName, q.FirstNameQuery.GetFirstName(), q.FirstNameQuery.GetMethod())
		case *userv1.SearchQuery_LastNameQuery:
			text(projections.FieldLastName, q.LastNameQuery.GetLastName(), q.LastNameQuery.GetMethod())
		case *userv1.SearchQuery_NickNameQuery:
			text(projections.FieldNickName, q.NickNameQuery.GetNickName(), q.NickNameQuery.GetMethod())
		case *userv1.SearchQuery_DisplayNameQuery:
			text(projections.FieldDisplayName, q.DisplayNameQuery.GetDisplayName(), q.DisplayNameQuery.GetMethod())
		case *userv1.SearchQuery_EmailQuery:
			text(projections.FieldEmail, q.EmailQuery.GetEmailAddress(), q.EmailQuery.GetMethod())
		case *userv1.SearchQuery_LoginNameQuery:
			text(projections.FieldLoginName, q.LoginNameQuery.GetLoginName(), q.LoginNameQuery.GetMethod())
		case *userv1.SearchQuery_StateQuery:
			state := domain.State(q.StateQuery.GetState())
			f.State = &state
		case *userv1.SearchQuery_TypeQuery:
			human := q.TypeQuery.GetType() == userv1.Type_TYPE_HUMAN
			f.Human = &human
		case *userv1.SearchQuery_InUserIdsQuery:
			f.IDs = append([]string{}, q.InUserIdsQuery.GetUserIds()...)
		case *userv1.SearchQuery_InUserEmailsQuery:
			f.Emails = append([]string{}, q.InUserEmailsQuery.GetUserEmails()...)
		case *userv1.SearchQuery_OrQuery:
			f.Or = filters(q.OrQuery.GetQueries())
		case *userv1.SearchQuery_AndQuery:
			f.And = filters(q.AndQuery.GetQueries())
		case *userv1.SearchQuery_NotQuery:
			if inner := q.NotQuery.GetQuery(); inner != nil {
				f.Not = &filters([]*userv1.SearchQuery{inner})[0]
			}
		}
		out = append(out, f)
	}
	return out
}

func (s *server) listUserChanges(ctx context.Context, req *managementv1.ListUserChangesRequest) (*managementv1.ListUserChangesResponse, error) {
	q := req.GetQuery()
	if q.GetLimit() > maxLimit {
		return nil, errLimit
	}
	u, events, err := s.history(ctx, req.GetUserId())
	if err != nil && (!errors.Is(err, domain.ErrUnknownEvent) || !u.Exists()) { // what is listed needs no decoding
		return nil, err
	}
	if !q.GetAsc() {
		slices.Reverse(events)
	}
	limit := cmp.Or(int(q.GetLimit()), defaultLimit)
	res := &managementv1.ListUserChangesResponse{}
	var editors []string
	for _, e := range events {
		sequence := uint64(e.Sequence)
		from := q.GetSequence()
		if from > 0 && (q.GetAsc() && sequence <= from || !q.GetAsc() && sequence >= from) {
			continue
		}
		if len(res.Result) == limit {
			break
		}
		editors = append(editors, e.Actor)
		res.Result = append(res.Result, &changev1.Change{
			ChangeDate: timestamppb.New(e.At), Sequence: sequence, EditorId: e.Actor, ResourceOwnerId: e.Org,
			EventType: &zitadelv1.LocalizedMessage{Key: e.Type, LocalizedMessage: words(e.Type)},
		})
	}
	names, err := s.deps.Tokens.Names(ctx, editors)
	if err != nil {
		return nil, err
	}
	for _, change := range res.Result {
		change.EditorDisplayName = names[change.EditorId]
	}
	return res, nil
}

// words spells an event's name out: "HumanAdded" is "Human added".
func words(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		begins := i > 0 && unicode.IsUpper(r) && (unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]))
		switch {
		case begins && i+1 < len(runes) && unicode.IsLower(runes[i+1]):
			b.WriteByte(' ')
			b.WriteRune(unicode.ToLower(r))
		case begins:
			b.WriteByte(' ')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func (s *server) listHumanLinkedIDPs(ctx context.Context, req *managementv1.ListHumanLinkedIDPsRequest) (*managementv1.ListHumanLinkedIDPsResponse, error) {
	offset, limit, err := window(req.GetQuery())
	if err != nil {
		return nil, err
	}
	u, _, err := s.history(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	links := u.IDPLinks
	res := &managementv1.ListHumanLinkedIDPsResponse{Details: &zitadelv1.ListDetails{
		TotalResult: uint64(len(links)), ProcessedSequence: uint64(u.Sequence), ViewTimestamp: timestamppb.New(s.deps.Now()),
	}}
	links = links[min(offset, len(links)):]
	for _, l := range links[:min(limit, len(links))] {
		res.Result = append(res.Result, &idpv1.IDPUserLink{
			UserId: u.ID, IdpId: l.ConfigID, IdpName: l.ConfigID, ProvidedUserId: l.ExternalUserID, ProvidedUserName: l.DisplayName,
		})
	}
	return res, nil
}
