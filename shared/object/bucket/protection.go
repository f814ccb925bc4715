package bucket

import (
	"errors"
	"io/fs"
	"strings"
)

// Protection is what a bucket does itself to keep objects, whoever asks.
type Protection struct {
	// Overwriting is what the bucket does about who overwrites an object, and Deleting
	// about who deletes one: the rest of a sentence that begins with it, such as "keeps
	// each object for 30 days". Empty if that is a flaw, or not known.
	Overwriting, Deleting string
	// Flaws are what is not as it has to be.
	Flaws []Flaw
	// Unknown are the actions that the role may not do, so that what they would tell is
	// not known.
	Unknown []string
}

// Lets begins what Deleting says of a bucket that lets objects be deleted.
const Lets = "lets "

// Keeps says that what is written can't be removed for a time.
func (p Protection) Keeps() bool { return p.Deleting != "" && !strings.HasPrefix(p.Deleting, Lets) }

// Flaw is something about a bucket that is not as it has to be.
type Flaw struct {
	About string // a word
	Text  string
	Fix   string // what to do about it
	// Fatal says that nothing is written to the bucket for it.
	Fatal bool
}

// Asked takes how a question to the bucket ended, and reports whether it was answered.
// That the role may not do the action is noted; what else went wrong is returned.
func (p *Protection) Asked(action string, err error) (told bool, _ error) {
	if errors.Is(err, fs.ErrPermission) {
		p.Unknown = append(p.Unknown, action)
		return false, nil
	}
	return err == nil, err
}
