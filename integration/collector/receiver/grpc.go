package main

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip" // what every OTLP server has to accept
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

func serveGrpc(r *receiver, listener net.Listener, config *tls.Config) error {
	var options []grpc.ServerOption
	if config != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	open := &connections{Listener: listener, open: map[string]net.Conn{}}
	server := grpc.NewServer(options...)
	pprofileotlp.RegisterGRPCServer(server, &service{receiver: r, connections: open})
	return server.Serve(open)
}

// connections knows the sockets, to cut one.
type connections struct {
	net.Listener
	lock sync.Mutex
	open map[string]net.Conn
}

func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.lock.Lock()
		c.open[conn.RemoteAddr().String()] = conn
		c.lock.Unlock()
	}
	return conn, err
}

func (c *connections) cut(peer string) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if conn := c.open[peer]; conn != nil {
		delete(c.open, peer)
		hangUp(conn)
	}
}

type service struct {
	pprofileotlp.UnimplementedGRPCServer
	receiver    *receiver
	connections *connections
}

// Export is OTLP/gRPC's only method.
func (s *service) Export(ctx context.Context, request pprofileotlp.ExportRequest) (pprofileotlp.ExportResponse, error) {
	headers := map[string]string{}
	if incoming, ok := metadata.FromIncomingContext(ctx); ok {
		for name, values := range incoming {
			headers[name] = strings.Join(values, ", ")
		}
	}
	did := s.receiver.next()
	response := pprofileotlp.NewExportResponse()
	accepted := false
	var answer error
	switch did.name {
	case "ok":
		accepted = true
	case "slow":
		select {
		case <-time.After(did.duration()):
			accepted = true
		case <-ctx.Done():
			answer = status.FromContextError(ctx.Err()).Err()
		}
	case "status":
		answer = status.Error(codes.Code(did.seconds), "as the test wants it")
	case "exhausted":
		refusal := status.New(codes.ResourceExhausted, "too much")
		if did.seconds > 0 {
			info := &errdetails.RetryInfo{RetryDelay: durationpb.New(did.duration())}
			with, err := refusal.WithDetails(info)
			if err != nil {
				fail(err)
			}
			refusal = with
		}
		answer = refusal.Err()
	case "partial":
		_, profiles := count(request.Profiles())
		response.PartialSuccess().SetRejectedProfiles(int64(profiles))
		response.PartialSuccess().SetErrorMessage("too old")
	case "reset":
		if from, ok := peer.FromContext(ctx); ok {
			s.connections.cut(from.Addr.String())
		}
		answer = status.Error(codes.Unavailable, "cut")
	default:
		answer = status.Error(codes.Unimplemented, "this action is not for gRPC")
	}
	if err := s.receiver.report(did, request, accepted, headers); err != nil {
		fail(err)
	}
	return response, answer
}
