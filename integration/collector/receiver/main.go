// Command receiver takes OTLP profiles over gRPC or HTTP as OpenTelemetry's own libraries do, and misbehaves as told: what a
// sender does about it is then seen from outside. Each request takes the next word of --script; after its end all is well.
//
//	ok            accepted
//	429=S         HTTP: 429 with Retry-After in seconds; 429-date=S: as an HTTP-date S seconds ahead
//	status=N      HTTP: status N; gRPC: code N
//	exhausted     gRPC: RESOURCE_EXHAUSTED without RetryInfo; exhausted=S with RetryInfo of S seconds
//	partial       200/OK, all profiles of the request rejected in partial_success
//	slow=S        answers well after S seconds, unless the sender hangs up before
//	reset         HTTP: the connection is reset when half of the request's body is read; gRPC: in the middle of the call
//	html          HTTP: 200 with a page
//
// `WORD*N` stands for N times WORD. Accepted requests are written to --folder as NNNNNN.otlp. Every line of standard output is
// JSON: first {"listening": ADDRESS}, then what happened, an object a request.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"
)

// event is what happened to one request.
type event struct {
	Action    string            `json:"action"`
	Accepted  bool              `json:"accepted"`
	Samples   int               `json:"samples"`
	Profiles  int               `json:"profiles"`
	UnixNanos int64             `json:"unix_nanos"`
	Headers   map[string]string `json:"headers"`
}

type action struct {
	name    string
	seconds float64
}

// receiver is the state that both protocols share.
type receiver struct {
	folder   string
	lock     sync.Mutex
	script   []action
	accepted int
}

func parse(script string) ([]action, error) {
	var actions []action
	for _, word := range strings.FieldsFunc(script, func(r rune) bool { return r == ',' || r == ' ' }) {
		times := 1
		if before, after, found := strings.Cut(word, "*"); found {
			count, err := strconv.Atoi(after)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", word, err)
			}
			word, times = before, count
		}
		parsed := action{name: word}
		if before, after, found := strings.Cut(word, "="); found {
			seconds, err := strconv.ParseFloat(after, 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", word, err)
			}
			parsed = action{before, seconds}
		}
		switch parsed.name {
		case "ok", "429", "429-date", "status", "exhausted", "partial", "slow", "reset", "html":
		default:
			return nil, fmt.Errorf("no such action: %q", word)
		}
		for range times {
			actions = append(actions, parsed)
		}
	}
	return actions, nil
}

// next is what to do with this request.
func (r *receiver) next() action {
	r.lock.Lock()
	defer r.lock.Unlock()
	if len(r.script) == 0 {
		return action{name: "ok"}
	}
	first := r.script[0]
	r.script = r.script[1:]
	return first
}

func (r *receiver) say(what any) {
	r.lock.Lock()
	defer r.lock.Unlock()
	line, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(line, '\n'))
}

// report tells of a request and keeps an accepted one.
func (r *receiver) report(did action, request pprofileotlp.ExportRequest, accepted bool, headers map[string]string) error {
	if accepted {
		bytes, err := request.MarshalProto()
		if err != nil {
			return err
		}
		r.lock.Lock()
		r.accepted++
		number := r.accepted
		r.lock.Unlock()
		// Whole or not at all: the test may read at any moment.
		name := filepath.Join(r.folder, fmt.Sprintf("%06d.otlp", number))
		if err := os.WriteFile(name+".tmp", bytes, 0o644); err != nil {
			return err
		}
		if err := os.Rename(name+".tmp", name); err != nil {
			return err
		}
	}
	samples, profiles := count(request.Profiles())
	r.say(event{did.name, accepted, samples, profiles, time.Now().UnixNano(), headers})
	return nil
}

// count tells how many occurrences and how many Profile messages a request has.
func count(request pprofile.Profiles) (samples, profiles int) {
	for _, resource := range request.ResourceProfiles().All() {
		for _, scope := range resource.ScopeProfiles().All() {
			for _, profile := range scope.Profiles().All() {
				profiles++
				for _, sample := range profile.Samples().All() {
					samples += max(sample.TimestampsUnixNano().Len(), sample.Values().Len())
				}
			}
		}
	}
	return samples, profiles
}

func (a action) duration() time.Duration { return time.Duration(a.seconds * float64(time.Second)) }

func fail(err error) {
	fmt.Fprintln(os.Stderr, "receiver:", err)
	os.Exit(1)
}

func main() {
	protocol := flag.String("protocol", "grpc", "grpc or http")
	listen := flag.String("listen", "127.0.0.1:0", "address")
	folder := flag.String("folder", ".", "where accepted requests go")
	script := flag.String("script", "", "what to do with which request")
	certificate := flag.String("cert", "", "TLS: certificate (PEM), read again for every connection")
	key := flag.String("key", "", "TLS: key (PEM)")
	clients := flag.String("client-ca", "", "mTLS: who signs clients (PEM)")
	flag.Parse()

	actions, err := parse(*script)
	if err != nil {
		fail(err)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		fail(err)
	}
	tls, err := tlsConfig(*certificate, *key, *clients)
	if err != nil {
		fail(err)
	}
	r := &receiver{folder: *folder, script: actions}
	r.say(map[string]string{"listening": listener.Addr().String()})
	switch *protocol {
	case "grpc":
		err = serveGrpc(r, listener, tls)
	case "http":
		err = serveHTTP(r, listener, tls)
	default:
		err = fmt.Errorf("no such protocol: %q", *protocol)
	}
	fail(err)
}
