package main

import (
	"compress/gzip"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"
)

const path = "/v1development/profiles"

func serveHTTP(r *receiver, listener net.Listener, config *tls.Config) error {
	server := &http.Server{Handler: http.HandlerFunc(r.serve), TLSConfig: config}
	if config != nil {
		return server.ServeTLS(listener, "", "")
	}
	return server.Serve(listener)
}

// serve is the whole of OTLP/HTTP that a sender sees.
func (r *receiver) serve(w http.ResponseWriter, in *http.Request) {
	headers := map[string]string{}
	for name, values := range in.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	if in.Method != http.MethodPost || in.URL.Path != path || in.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "POST "+path+" with application/x-protobuf, please", http.StatusNotFound)
		return
	}
	did := r.next()
	if did.name == "reset" {
		r.reset(w, in, did, headers)
		return
	}
	request, err := read(in)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	response := pprofileotlp.NewExportResponse()
	accepted := false
	status := http.StatusOK
	switch did.name {
	case "ok":
		accepted = true
	case "slow":
		select {
		case <-time.After(did.duration()):
			accepted = true
		case <-in.Context().Done():
		}
	case "429":
		w.Header().Set("Retry-After", strconv.Itoa(int(did.seconds)))
		status = http.StatusTooManyRequests
	case "429-date":
		// A date has whole seconds: rounded up, so that it is never earlier than asked for.
		at := time.Now().Add(did.duration() + time.Second).Truncate(time.Second)
		w.Header().Set("Retry-After", at.UTC().Format(http.TimeFormat))
		status = http.StatusTooManyRequests
	case "status":
		status = int(did.seconds)
	case "partial":
		_, profiles := count(request.Profiles())
		response.PartialSuccess().SetRejectedProfiles(int64(profiles))
		response.PartialSuccess().SetErrorMessage("too old")
	case "html":
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!doctype html><title>Sign in</title>")
	default:
		http.Error(w, "this action is not for HTTP", http.StatusInternalServerError)
	}
	if err := r.report(did, request, accepted, headers); err != nil {
		fail(err)
	}
	if did.name == "html" {
		return
	}
	body, err := response.MarshalProto()
	if err != nil {
		fail(err)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.WriteHeader(status)
	if status == http.StatusOK {
		w.Write(body)
	}
}

func read(in *http.Request) (pprofileotlp.ExportRequest, error) {
	request := pprofileotlp.NewExportRequest()
	var body io.Reader = in.Body
	switch in.Header.Get("Content-Encoding") {
	case "gzip":
		unpacked, err := gzip.NewReader(in.Body)
		if err != nil {
			return request, err
		}
		body = unpacked
	case "":
	default:
		return request, errors.New("only gzip is understood here")
	}
	bytes, err := io.ReadAll(body)
	if err != nil {
		return request, err
	}
	return request, request.UnmarshalProto(bytes)
}

// reset reads half of the body and leaves without a goodbye.
func (r *receiver) reset(w http.ResponseWriter, in *http.Request, did action, headers map[string]string) {
	io.CopyN(io.Discard, in.Body, max(in.ContentLength/2, 1))
	r.say(event{Action: did.name, UnixNanos: time.Now().UnixNano(), Headers: headers})
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(err)
	}
	hangUp(conn)
}

// hangUp closes with RST.
func hangUp(conn net.Conn) {
	if under, ok := conn.(*tls.Conn); ok {
		conn = under.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}
