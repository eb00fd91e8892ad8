// Package access knows who may do what: tokens, roles, organisations.
//
// A token belongs to one organisation and has one role in it; a few roles hold
// in every organisation. Only its hash is
// stored. A revoked or expired token stops working within a second on every
// instance of the service.
package access

import "github.com/muster-id/muster/domain"

// Role is what a token may do in its organisation.
type Role string

// The roles, from the strongest.
const (
	// IAMOwner may do everything, in every organisation.
	IAMOwner Role = "IAM_OWNER"
	// IAMOrgManager may manage every organisation's users and webhooks.
	IAMOrgManager Role = "IAM_ORG_MANAGER"
	// IAMUserManager may read and change every organisation's users.
	IAMUserManager Role = "IAM_USER_MANAGER"
	// OrgOwner may do everything in its own organisation.
	OrgOwner Role = "ORG_OWNER"
	// IAMLoginClient is a login page's: it may read and change its
	// organisation's users, and make, read and end sessions of everybody's.
	IAMLoginClient Role = "IAM_LOGIN_CLIENT"
	// OrgUserManager may read and change its organisation's users.
	OrgUserManager Role = "ORG_USER_MANAGER"
	// OrgUserViewer may read its organisation's users.
	OrgUserViewer Role = "ORG_USER_VIEWER"
)

// Roles lists every role.
var Roles = []Role{IAMOwner, IAMOrgManager, IAMUserManager, OrgOwner, IAMLoginClient, OrgUserManager, OrgUserViewer}

// Permission is what a call asks for.
type Permission string

// The permissions.
const (
	UserRead  Permission = "user.read"
	UserWrite Permission = "user.write"
	// SessionRead and SessionWrite are for sessions without their tokens.
	SessionRead  Permission = "session.read"
	SessionWrite Permission = "session.write"
	// OrgWrite is for what an organisation's owner decides, such as where its
	// events are sent.
	OrgWrite Permission = "org.write"
	// IAMWrite is for what concerns the whole installation.
	IAMWrite Permission = "iam.write"
)

// May reports whether a role holds a permission.
func (r Role) May(p Permission) bool {
	switch r {
	case IAMOwner:
		return true
	case IAMOrgManager:
		return p == UserRead || p == UserWrite || p == OrgWrite
	case OrgOwner:
		return p == UserRead || p == UserWrite || p == OrgWrite || p == SessionRead || p == SessionWrite
	case IAMLoginClient:
		return p == UserRead || p == UserWrite || p == SessionRead || p == SessionWrite
	case IAMUserManager, OrgUserManager:
		return p == UserRead || p == UserWrite
	case OrgUserViewer:
		return p == UserRead
	}
	return false
}

// AnySession reports whether a role's permissions for sessions hold in all
// organisations, and not only in its token's own.
func (r Role) AnySession() bool { return r == IAMOwner || r == IAMLoginClient }

// AnyOrganisation reports whether a role's permissions hold in all
// organisations, and not only in its token's own.
func (r Role) AnyOrganisation() bool {
	return r == IAMOwner || r == IAMOrgManager || r == IAMUserManager
}

// Valid reports whether r is one of Roles.
func (r Role) Valid() bool {
	switch r {
	case IAMOwner, IAMOrgManager, IAMUserManager, OrgOwner, IAMLoginClient, OrgUserManager, OrgUserViewer:
		return true
	}
	return false
}

// The failures of this room. Those of authentication keep the wire's raw keys
// and are shown as they are in every language.
var (
	ErrNoHeader      = domain.NewError(domain.KindUnauthenticated, "", "auth header missing")
	ErrHeader        = domain.NewError(domain.KindUnauthenticated, "AUTH-toLo1", "invalid auth header")
	ErrToken         = domain.NewError(domain.KindUnauthenticated, "AUTH-7fs1e", "Errors.Token.Invalid")
	ErrNoOrg         = domain.NewError(domain.KindPermissionDenied, "AUTH-Bs7Ds", "Organisation doesn't exist")
	ErrNoMembership  = domain.NewError(domain.KindNotFound, "AUTHZ-cdgFk", "membership not found")
	ErrNoPermission  = domain.NewError(domain.KindPermissionDenied, "AUTH-5mWD2", "No matching permissions found")
	ErrRole          = domain.NewError(domain.KindInvalidArgument, "MUSTER-role", "Role is unknown")
	ErrExpiry        = domain.NewError(domain.KindInvalidArgument, "MUSTER-expiry", "Expiration date is in the past")
	ErrTokenNotFound = domain.NewError(domain.KindNotFound, "MUSTER-token", "Token not found")
	ErrOrgMoved      = domain.NewError(domain.KindAborted, "MUSTER-orgmoved", "Organisation is being changed by others, try again")
	ErrOrgID         = domain.NewError(domain.KindInvalidArgument, "MUSTER-orgid", "Organisation ID must be 1 to 200 letters, digits, dashes or underscores")
)
