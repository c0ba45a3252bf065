package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"sync"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opamp-go/server"
	"github.com/open-telemetry/opamp-go/server/types"
	"google.golang.org/protobuf/encoding/protojson"
)

// Listens on a free port, for both transports. A line is a ServerToAgent in JSON: sent at once where the last agent has a WebSocket, and
// otherwise as the next answer.
func serve() func(line string) {
	var mutex sync.Mutex
	var last types.Connection
	var uid []byte
	var waiting []*protobufs.ServerToAgent

	onMessage := func(_ context.Context, connection types.Connection, message *protobufs.AgentToServer) *protobufs.ServerToAgent {
		text, err := protojson.Marshal(message)
		if err != nil {
			log.Fatal(err)
		}
		tell("message", json.RawMessage(text))
		mutex.Lock()
		defer mutex.Unlock()
		last, uid = connection, message.InstanceUid
		answer := &protobufs.ServerToAgent{}
		if len(waiting) > 0 {
			answer, waiting = waiting[0], waiting[1:]
		}
		answer.InstanceUid = message.InstanceUid
		answer.Capabilities = 0x7f
		return answer
	}
	connection := types.ConnectionCallbacks{
		OnMessage:         onMessage,
		OnConnectionClose: func(types.Connection) { tell("closed", true) },
		OnReadMessageError: func(_ types.Connection, _ int, _ []byte, err error) {
			tell("unreadable", err.Error())
		},
	}
	settings := server.StartSettings{
		Settings: server.Settings{
			EnableCompression:  true,
			CustomCapabilities: []string{"com.example.a"},
			Callbacks: types.Callbacks{OnConnecting: func(request *http.Request) types.ConnectionResponse {
				tell("uid", request.Header.Get("OpAMP-Instance-UID"))
				return types.ConnectionResponse{Accept: true, ConnectionCallbacks: connection}
			}},
		},
		ListenEndpoint: "127.0.0.1:0",
		ListenPath:     "/v1/opamp",
	}
	listener := server.New(nil)
	if err := listener.Start(settings); err != nil {
		log.Fatal(err)
	}
	tell("listening", listener.Addr().String())
	return func(line string) {
		message := &protobufs.ServerToAgent{}
		if err := protojson.Unmarshal([]byte(line), message); err != nil {
			log.Fatal(err)
		}
		mutex.Lock()
		defer mutex.Unlock()
		message.InstanceUid = uid
		if last == nil || last.Send(context.Background(), message) != nil {
			waiting = append(waiting, message)
		}
	}
}
