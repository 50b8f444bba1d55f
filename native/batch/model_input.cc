#include "batch/model_input.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace springtide {
namespace {

void check_number(const char* name, size_t got, size_t wanted, const char* of) {
    if (got != wanted)
        throw std::invalid_argument(std::string(name) + ": got " + std::to_string(got) + ", wanted " +
                                    std::to_string(wanted) + ", one for each " + of);
}

Pooling pooling_of(const FieldKeys& field, FieldPooling pooling, size_t u, size_t dim) {
    return {field.inverse, field.offsets, u, dim, pooling, field.weights};
}

}  // namespace

ModelInput::ModelInput(std::vector<Table*> tables, std::vector<Field> fields, size_t dense_columns, size_t threads)
    : columns_(dense_columns), workers_(threads) {
    for (Table* table : tables) tables_.push_back({table, {}, {}, {}, {}, std::vector<float>(table->dim()), {}});
    size_t start = 0;
    for (const Field& field : fields) {
        if (field.table >= tables.size())
            throw std::invalid_argument("table: got " + std::to_string(field.table) + ", wanted 0 to " +
                                        std::to_string(tables.size()) + " - 1");
        fields_.push_back({field.pooling, start, {}, {}});
        table_of_field_.push_back(field.table);
        start += field.pooling.width(tables[field.table]->dim());
    }
    for (size_t f = 0; f < fields_.size(); ++f) tables_[table_of_field_[f]].fields.push_back(&fields_[f]);
    columns_ += start;
}

void ModelInput::check_batch(std::span<const TableKeys> tables, std::span<const FieldKeys> fields) const {
    check_number("batch", tables.size(), tables_.size(), "table");
    check_number("batch", fields.size(), fields_.size(), "field");
    for (const TableKeys& table : tables) check_number("counts", table.counts.size(), table.keys.size(), "key");
    for (size_t f = 0; f < fields.size(); ++f) {
        const size_t t = table_of_field_[f], u = tables[t].keys.size();
        check(pooling_of(fields[f], fields_[f].pooling, u, tables_[t].table->dim()), {columns_, fields_[f].start});
    }
}

void ModelInput::find(std::span<const TableKeys> tables, std::span<const FieldKeys> fields, size_t* missing) {
    check_batch(tables, fields);
    for (size_t f = 0; f < fields.size(); ++f) fields_[f].pending = fields[f];
    workers_.run(tables_.size(), [&](size_t t) {
        auto& [keys, rows] = tables_[t].pending;
        keys = tables[t];
        rows.resize(keys.keys.size());
        tables_[t].table->find(keys.keys, rows.data());
        missing[t] = static_cast<size_t>(std::count(rows.begin(), rows.end(), kNoRow));
    });
    has_pending_ = true;
}

void ModelInput::resident(size_t t, uint8_t* resident) const {
    for (const uint32_t row : tables_.at(t).pending.rows) *resident++ = row != kNoRow;
}

void ModelInput::admit(size_t t, std::span<const int64_t> places, uint32_t at_s) {
    BatchRows& pending = tables_.at(t).pending;
    std::vector<uint64_t> keys;
    keys.reserve(places.size());
    for (const int64_t place : places) {
        if (place < 0 || static_cast<size_t>(place) >= pending.rows.size())
            throw std::invalid_argument("places: got " + std::to_string(place) + ", wanted 0 to " +
                                        std::to_string(pending.rows.size()) + " - 1");
        keys.push_back(pending.keys.keys[static_cast<size_t>(place)]);
    }
    std::vector<uint32_t> rows(keys.size());
    tables_[t].table->admit_new(keys, rows.data(), at_s);
    for (size_t i = 0; i < rows.size(); ++i) pending.rows[static_cast<size_t>(places[i])] = rows[i];
}

std::vector<std::vector<int64_t>> ModelInput::admit_missing(std::span<const size_t> tables, uint32_t at_s) {
    std::vector<std::vector<int64_t>> places(tables.size());
    for (const size_t t : tables) tables_.at(t);
    workers_.run(tables.size(), [&](size_t i) {
        const std::vector<uint32_t>& rows = tables_[tables[i]].pending.rows;
        for (size_t place = 0; place < rows.size(); ++place)
            if (rows[place] == kNoRow) places[i].push_back(static_cast<int64_t>(place));
        admit(tables[i], places[i], at_s);
    });
    return places;
}

void ModelInput::activate_pending() {
    if (!has_pending_) return;
    for (TableState& table : tables_) std::swap(table.pending, table.active);
    for (FieldState& field : fields_) std::swap(field.pending, field.active);
    has_pending_ = false;
}

void ModelInput::gather(float* out) {
    activate_pending();
    workers_.run(tables_.size(), [&](size_t t) {
        TableState& state = tables_[t];
        const std::vector<uint32_t>& rows = state.active.rows;
        state.weights.resize(rows.size());
        std::transform(rows.begin(), rows.end(), state.weights.begin(), [&](uint32_t row) {
            return row == kNoRow ? state.zeros.data() : static_cast<const Table*>(state.table)->weights(row);
        });
        for (const FieldState* field : state.fields)
            pool(pooling_of(field->active, field->pooling, rows.size(), state.table->dim()), state.weights.data(), out,
                 {columns_, field->start});
    });
}

void ModelInput::learn(const float* gradient, uint32_t at_s) {
    workers_.run(tables_.size(), [&](size_t t) {
        TableState& state = tables_[t];
        const auto& [keys, rows] = state.active;
        const size_t dim = state.table->dim();
        state.gradients.assign(rows.size() * dim, 0.0f);
        for (const FieldState* field : state.fields)
            add_unpooled(pooling_of(field->active, field->pooling, rows.size(), dim), state.weights.data(), gradient,
                         {columns_, field->start}, state.gradients.data());
        state.table->update_rows(rows, keys.keys, state.gradients.data(), keys.counts.data(), at_s);
    });
}

}  // namespace springtide
