// Package domain holds the rules of users and organisations: commands become
// events, events become state. It is pure: it reads no clock, no randomness, no
// database and no network; what it needs of those comes with the command.
package domain
