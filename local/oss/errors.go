package oss

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"net/http"
	"slices"
	"strconv"
)

// Error is an answer that refuses.
type Error struct {
	Status  int
	Code    string
	Message string
	Details map[string]string // further elements by their names
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

func invalidArgument(message string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: "InvalidArgument", Message: message}
}

func noSuchKey(key string) *Error {
	return &Error{http.StatusNotFound, "NoSuchKey", "The specified key does not exist.", map[string]string{"Key": key}}
}

func noSuchBucket(bucket string) *Error {
	return &Error{http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist.", map[string]string{"BucketName": bucket}}
}

func preconditionFailed(condition string) *Error {
	return &Error{http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.",
		map[string]string{"Condition": condition}}
}

func notImplemented(what string) *Error {
	return &Error{http.StatusNotImplemented, "NotImplemented", "A header or query that you provided implies functionality that is not implemented: " + what + ".", nil}
}

func noSuchUpload(id string) *Error {
	return &Error{http.StatusNotFound, "NoSuchUpload",
		"The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.",
		map[string]string{"UploadId": id}}
}

func malformedXML(why string) *Error {
	return &Error{http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema.",
		map[string]string{"ErrorDetail": why}}
}

var (
	errUnchanged = &Error{Status: http.StatusNotModified, Code: "NotModified"} // which has no body
	errDeleted   = &Error{Status: http.StatusNotFound, Code: "NoSuchKey", Message: "The specified key does not exist."}
	errExists    = &Error{Status: http.StatusConflict, Code: "FileAlreadyExists", Message: "The object you specified already exists and can not be overwritten."}
	errImmutable = &Error{Status: http.StatusConflict, Code: "FileImmutable", Message: "The object is immutable."}
	errLarge     = &Error{Status: http.StatusBadRequest, Code: "EntityTooLarge", Message: "Your proposed upload exceeds the maximum allowed size."}
	errDigest    = &Error{Status: http.StatusBadRequest, Code: "InvalidDigest", Message: "The Content-MD5 you specified was invalid."}
	errCut       = &Error{Status: http.StatusBadRequest, Code: "IncompleteBody", Message: "The request body is incomplete."}
)

// sorted sorts in place.
func sorted(names []string) []string {
	slices.Sort(names)
	return names
}

// escape writes text into XML.
func escape(to *bytes.Buffer, text string) {
	// A bytes.Buffer takes everything.
	_ = xml.EscapeText(to, []byte(text))
}

// refuse answers with an error.
func (c *call) refuse(err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Status: http.StatusInternalServerError, Code: "InternalError", Message: err.Error()}
	}
	var body bytes.Buffer
	body.WriteString(xml.Header + "<Error>\n")
	element := func(name, value string) {
		body.WriteString("  <" + name + ">")
		escape(&body, value)
		body.WriteString("</" + name + ">\n")
	}
	element("Code", e.Code)
	element("Message", e.Message)
	element("RequestId", c.id)
	element("HostId", c.r.Host)
	names := make([]string, 0, len(e.Details))
	for name := range e.Details {
		names = append(names, name)
	}
	for _, name := range sorted(names) {
		element(name, e.Details[name])
	}
	body.WriteString("</Error>\n")
	h := c.w.Header()
	h.Set("Content-Type", "application/xml")
	if e.Status == http.StatusNotModified {
		c.w.WriteHeader(e.Status)
		return
	}
	if c.r.Method == http.MethodHead {
		// An answer to HEAD has no body, so the error stands in a header.
		h.Set("X-Oss-Err", base64.StdEncoding.EncodeToString(body.Bytes()))
		c.w.WriteHeader(e.Status)
		return
	}
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	c.w.WriteHeader(e.Status)
	// A client that is gone needs no answer.
	_, _ = c.w.Write(body.Bytes())
}

// answer answers with a document.
func (c *call) answer(document any) error {
	body, err := xml.Marshal(document)
	if err != nil {
		return err
	}
	body = append([]byte(xml.Header), body...)
	h := c.w.Header()
	h.Set("Content-Type", "application/xml")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(body)
	return nil
}
