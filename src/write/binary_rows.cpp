#include "write/binary_rows.hpp"

#include <cstdio>
#include <cstring>

// The server's connection structure, which nothing here looks into, wants the headers of GSSAPI.
#undef ENABLE_GSS

extern "C" {
#include "utils/memutils.h"

#include "libpq/libpq.h"
#include "libpq/pqformat.h"
#include "port/pg_bswap.h"
}

namespace homing::write {

namespace {

// One message of the client's COPY; false: it said CopyDone.
bool NextMessage(CopyFromState source)
{
	for (;;) {
		HOLD_CANCEL_INTERRUPTS();
		pq_startmsgread();
		const int type = pq_getbyte();
		if (type == EOF)
			ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
			                errmsg("unexpected EOF on client connection with an open transaction")));
		if (std::strchr("dcfHS", type) == nullptr)
			ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
			                errmsg("unexpected message type 0x%02X during COPY from stdin", type)));
		if (pq_getmessage(source->fe_msgbuf,
		                  type == 'd' ? PQ_LARGE_MESSAGE_LIMIT : PQ_SMALL_MESSAGE_LIMIT) != 0)
			ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
			                errmsg("unexpected EOF on client connection with an open transaction")));
		RESUME_CANCEL_INTERRUPTS();
		if (type == 'd')
			return true;
		if (type == 'c')
			return false;
		if (type == 'f')
			ereport(ERROR,
			        (errcode(ERRCODE_QUERY_CANCELED),
			         errmsg("COPY from stdin failed: %s", pq_getmsgstring(source->fe_msgbuf))));
		// Flush and Sync mean nothing here.
	}
}

// Whatever is there, up to `size` bytes; 0 at the end of the input.
int ReadSome(CopyFromState source, char *to, int size)
{
	// What core read ahead when it read the header.
	const int ahead = RAW_BUF_BYTES(source);
	if (ahead > 0) {
		const int taken = ahead < size ? ahead : size;
		std::memcpy(to, source->raw_buf + source->raw_buf_index, taken);
		source->raw_buf_index += taken;
		return taken;
	}
	if (source->raw_reached_eof)
		return 0;
	if (source->copy_src == COPY_FILE) {
		const int read = static_cast<int>(fread(to, 1, size, source->copy_file));
		if (ferror(source->copy_file) != 0)
			ereport(ERROR, (errcode_for_file_access(), errmsg("could not read from COPY file: %m")));
		source->raw_reached_eof = read == 0;
		return read;
	}
	StringInfo message = source->fe_msgbuf;
	while (message->cursor >= message->len) {
		if (!NextMessage(source)) {
			source->raw_reached_eof = true;
			return 0;
		}
	}
	const int available = message->len - message->cursor;
	const int taken = available < size ? available : size;
	pq_copymsgbytes(message, to, taken);
	return taken;
}

int ReadUpTo(CopyFromState source, char *to, int size)
{
	int read = 0;
	while (read < size) {
		const int more = ReadSome(source, to + read, size - read);
		if (more == 0)
			break;
		read += more;
	}
	return read;
}

void ReadExactly(CopyFromState source, char *to, int size)
{
	if (ReadUpTo(source, to, size) != size)
		ereport(ERROR,
		        (errcode(ERRCODE_BAD_COPY_FILE_FORMAT), errmsg("unexpected EOF in COPY data")));
}

int32 ReadInt32(CopyFromState source)
{
	uint32 value;
	ReadExactly(source, reinterpret_cast<char *>(&value), sizeof(value));
	return static_cast<int32>(pg_ntoh32(value));
}

// One field's size and bytes; returns where the bytes begin in the row.
int AppendField(CopyFromState source, StringInfo row, int32 *size)
{
	*size = ReadInt32(source);
	pq_sendint32(row, static_cast<uint32>(*size));
	if (*size < -1)
		ereport(ERROR, (errcode(ERRCODE_BAD_COPY_FILE_FORMAT), errmsg("invalid field size")));
	const int start = row->len;
	if (*size <= 0)
		return start;
	enlargeStringInfo(row, *size);
	ReadExactly(source, row->data + start, *size);
	row->len += *size;
	row->data[row->len] = '\0';
	return start;
}

uint64 ReadLineNumber(CopyFromState source)
{
	if (ReadInt32(source) != static_cast<int32>(sizeof(uint64)))
		ereport(ERROR, (errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
		                errmsg("a forwarded row has no line number")));
	uint64 line;
	ReadExactly(source, reinterpret_cast<char *>(&line), sizeof(line));
	return pg_ntoh64(line);
}

void CheckEnd(CopyFromState source)
{
	char extra;
	if (ReadUpTo(source, &extra, 1) != 0)
		ereport(ERROR, (errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
		                errmsg("received copy data after EOF marker")));
}

}  // namespace

bool ReadBinaryRow(CopyFromState source, bool numbered, int key_field, StringInfo row, uint64 *line,
                   BinaryField *key)
{
	*line = source->cur_lineno++;
	uint16 raw_count;
	const int read = ReadUpTo(source, reinterpret_cast<char *>(&raw_count), sizeof(raw_count));
	if (read == 0)
		return false;  // an older client that sends no trailer
	if (read != sizeof(raw_count))
		ereport(ERROR,
		        (errcode(ERRCODE_BAD_COPY_FILE_FORMAT), errmsg("unexpected EOF in COPY data")));
	auto count = static_cast<int16>(pg_ntoh16(raw_count));
	if (count == -1) {
		CheckEnd(source);
		return false;
	}
	if (numbered) {
		*line = ReadLineNumber(source);
		source->cur_lineno = *line + 1;
		--count;
	}
	if (count != list_length(source->attnumlist))
		ereport(ERROR, (errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
		                errmsg("row field count is %d, expected %d", count,
		                       list_length(source->attnumlist))));
	pq_sendint16(row, static_cast<uint16>(key_field < 0 ? count + 1 : count));
	int key_start = 0;
	for (int field = 0; field < count; ++field) {
		int32 size;
		const int start = AppendField(source, row, &size);
		if (field == key_field) {
			key_start = start;
			key->size = size;
		}
	}
	key->data = row->data + key_start;
	return true;
}

void AppendBinaryField(StringInfo row, const bytea *value)
{
	const int size = static_cast<int>(VARSIZE(value) - VARHDRSZ);
	pq_sendint32(row, static_cast<uint32>(size));
	appendBinaryStringInfo(row, VARDATA(value), size);
}

void AppendBinaryHeader(StringInfo out)
{
	appendBinaryStringInfo(out, "PGCOPY\n\377\r\n\0", 11);
	pq_sendint32(out, 0);  // flags
	pq_sendint32(out, 0);  // length of the extension
}

void AppendBinaryTrailer(StringInfo out)
{
	pq_sendint16(out, static_cast<uint16>(-1));
}

}  // namespace homing::write
