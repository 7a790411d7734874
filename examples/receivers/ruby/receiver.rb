# A receiver in Ruby, without gems. It verifies a request, stores its event once, and answers.
require "base64"
require "json"
require "openssl"
require "socket"

SECRET = ENV.fetch("ORDERS_SECRET")

def verify(headers, body) # headers: names in lower case; body: the bytes as they arrived
  key = SECRET.start_with?("whsec_") ? Base64.decode64(SECRET.delete_prefix("whsec_")) : SECRET
  sent_at = headers["webhook-timestamp"].to_s
  return false unless sent_at.match?(/\A[0-9]+\z/) && (Time.now.to_i - sent_at.to_i).abs < 300
  mac = OpenSSL::HMAC.digest("SHA256", key, "#{headers["webhook-id"]}.#{sent_at}.".b + body)
  want = "v1,#{Base64.strict_encode64(mac)}"
  headers["webhook-signature"].to_s.split.any? { |given| OpenSSL.secure_compare(given, want) }
end

SEEN = {} # stands for a table with a unique id, written in the transaction that does the work
LOCK = Mutex.new

def take(headers, body)
  return 401 unless verify(headers, body)
  event = JSON.parse(body)
  return 400 unless event.is_a?(Hash) && event["id"]
  LOCK.synchronize do
    next if SEEN.key?(event["id"])
    SEEN[event["id"]] = true
    puts [event.dig("trigger", "name"), event.dig("event", "op"), event.dig("event", "data", "new").to_json].join(" ")
  end
  204
rescue JSON::ParserError
  400
end

# A small server, so that the example needs no gem. In an application these lines are Rack's or Rails'.
def serve(client)
  while client.gets
    headers = {}
    while (line = client.gets&.chomp) && !line.empty?
      name, value = line.split(":", 2)
      headers[name.downcase] = value.to_s.strip
    end
    body = client.read(headers["content-length"].to_i).to_s
    client.write("HTTP/1.1 #{take(headers, body)} -\r\nContent-Length: 0\r\n\r\n")
  end
ensure
  client.close
end

$stdout.sync = true
host, port = ENV.fetch("LISTEN", "127.0.0.1:3000").split(":")
server = TCPServer.new(host, port.to_i)
puts "listening on #{host}:#{server.addr[1]}"
loop { Thread.new(server.accept) { |client| serve(client) } }
